"""What every test needs, so that it says the same on every machine.

Nothing is fetched, or taken from what the user fetched; one core is used; no setting of the
terminal or of a proxy counts; drawn examples are the same each time. And the browser of those
tests that look at pages.

    pytest --hypothesis-profile=explore      draws other examples each time
"""
import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

FROM_THE_HUB = ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT")
OF_A_TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

# Before anything imports the libraries that read them.
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[name] = "1"
for name in FROM_THE_HUB + OF_A_TERMINAL:
    os.environ.pop(name, None)
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hub-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
# What a compiler has made for another checkout, or another instruction set, is none of ours.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["HF_HOME"] + "/inductor"
# The secret that a run signs with is not that of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = os.environ["HF_HOME"] + "/state"
for name in ("no_proxy", "NO_PROXY"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "agg")
# On a busy machine, two threads wait for each other: four times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

for folder in ("tools", "benchmarks"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))

settings.register_profile("explore", deadline=None)
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")

# Tests that share what takes long to make: side by side (`pytest -n 2`), they stay in one
# process. All others go where there is room.
TOGETHER = ("test_site.py", "test_slides.py", "test_explorer.py", "test_explorer_page.py",
            "test_project.py::test_wheel")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Not `--dist loadgroup`: pytest-xdist 3.8 loses the groups with pytest 9.2."
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((part for part in TOGETHER if f"/{part}" in f"/{nodeid}"), nodeid)

    return Scheduling(config, log)


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
NO_BROWSER = ("no Chromium here for the browser tests; get one with `apt-get install chromium` "
              "or your system's package manager")


@pytest.fixture(scope="module") # two at once can't run in a process
def browser():
    "The system's Chromium, or playwright's own, or a line that says how to get it."
    from playwright.sync_api import sync_playwright
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        with sync_playwright() as playwright:  # what `playwright install chromium` has fetched
            fetched = playwright.chromium.executable_path
        path = fetched if Path(fetched).exists() else None
    if path is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(NO_BROWSER)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()
