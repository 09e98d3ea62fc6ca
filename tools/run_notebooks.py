"""`make notebooks`: export, run, save and clean every notebook, and write what is made of them.

    python tools/run_notebooks.py            all of them
    python tools/run_notebooks.py 03 index   those whose names begin so

A notebook with a failing cell is left as it was.
"""
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NBS = ROOT / "nbs"
SECONDS_A_CELL = 600
QUIET = ["--log-level=ERROR"]  # a kernel warns at every start that it talks over TCP


def run(path: Path) -> str | None:
    "Run one notebook and save its outputs; the error of its failing cell, if there is one."
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(nb, timeout=SECONDS_A_CELL, kernel_name="python3", record_timing=False,
                            extra_arguments=QUIET, resources={"metadata": {"path": str(NBS)}})
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    nbformat.write(nb, path)
    return None


def main(prefixes: list[str]) -> int:
    "Export, run, clean and generate; 1 where a notebook failed."
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    begins = tuple(prefixes) or ""
    paths = sorted(p for p in NBS.glob("*.ipynb") if p.name.startswith(begins))
    if not paths and prefixes:
        sys.exit(f"no notebook in nbs/ begins with {' or '.join(prefixes)}")
    if not paths:
        sys.exit("there is no notebook in nbs/")
    subprocess.run([BIN / "nbdev_export"], cwd=ROOT, check=True)
    failed = subprocess.run([sys.executable, ROOT / "tools/pictures.py"], cwd=ROOT).returncode != 0
    for path in paths:
        started = time.time()
        error = run(path)
        seconds = time.time() - started
        print(f"{'FAIL' if error else 'ran '}  {path.name:<32} {seconds:5.0f} s", flush=True)
        if error:
            failed += 1
            print(error, flush=True)
    subprocess.run([BIN / "nbdev_clean"], cwd=ROOT, check=True)
    for name in ("course", "readme", "configuration_page", "teachers_page", "architecture_page"):
        command = [sys.executable, ROOT / f"tools/{name}.py"]
        failed += subprocess.run(command, cwd=ROOT).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
