"""What every test needs: nothing is fetched, one core is used, and the scripts of tools/ and benchmarks/ can be imported."""
import os
import sys
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # before anything imports the libraries that read them
    os.environ[name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a busy machine, two threads wait for each other: four times slower

for folder in ("tools", "benchmarks"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
