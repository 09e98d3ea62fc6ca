"""What Windows lacks, taken away here: the package can be imported, and lessons run.

README says that Windows isn't supported. What is missing there must cost what it is for, and no
more.
"""
import subprocess
import sys
from pathlib import Path

from helpers_runs import HANGS

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import gzip, signal, sys
from pathlib import Path

import datasets, nbclient, torch                    # these have their own ways
from transformers import AutoTokenizer, MPNetModel, PreTrainedModel

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None                          # an ImportError
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "alarm", "pthread_sigmask", "sigwaitinfo"):
    delattr(signal, name)

root, here = Path(sys.argv[1]), Path.cwd()
from importlib import import_module
for path in sorted((root / "annotated_mpnet").glob("[!_]*.py")):
    import_module(f"annotated_mpnet.{path.stem}")

from annotated_mpnet import files, run_folder
packed = here / "a.txt.gz"
packed.write_bytes(gzip.compress(b"unpacked"))
print(files.unpacked(packed).read_text())
with run_folder.locked(here / "run"):
    print("held")

sys.path.insert(0, str(root / "tools"))
import kernels
import nbformat
kernels.FORKS, kernels.SECONDS = False, 2
for code in ("print(1)", "import time\\ntime.sleep(600)"):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(nb, here / "a.ipynb")
    print(repr(kernels.outcome(here / "a.ipynb", str(here)).splitlines()[:1]))
"""


def test_without_what_only_unix_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT)], cwd=tmp_path, text=True,
                          capture_output=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    unpacked, held, runs, hangs = done.stdout.splitlines()
    assert (unpacked, held, runs) == ("unpacked", "held", "[]")
    assert "timed out" in hangs and "2 seconds" in hangs
    assert "this system has no file locks" in done.stderr
