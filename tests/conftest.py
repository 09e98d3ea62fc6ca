"""What every test needs: nothing is fetched, one core is used, and the scripts of tools/ and benchmarks/ can be imported; and the browser of those who look at pages."""
import os
import shutil
import sys
from pathlib import Path

import pytest

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # before anything imports the libraries that read them
    os.environ[name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a busy machine, two threads wait for each other: four times slower

for folder in ("tools", "benchmarks"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module") # two at once can't run in a process
def browser():
    "The system's Chromium, or a line that says how to get it."
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        said = "no Chromium here for the browser tests; get one with `apt-get install chromium` or your system's package manager"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()
