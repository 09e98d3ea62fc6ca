"""Write constraints.txt: the installed version of each package that project and extras need.

    make test && .venv/bin/python tools/freeze.py
    make test-lowest && .venv-lowest/bin/python tools/freeze.py constraints-lowest.txt

Names come from the metadata of the installed packages, so what else lies in the environment stays
out. A local version (`+cpu`) is cut off, and the companions of a CUDA build (`nvidia-*`, `triton`)
are left to `torch`, which pins its own.
"""
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"constraints.txt": ("dev", "notebooks", "corpus", "wandb"),
          "constraints-lowest.txt": ("tests", "wandb")}
HEADS = {"constraints.txt": """\
# The versions that were tested together, with Python 3.11 to 3.13. Written by tools/freeze.py; \
used by the Makefile:
#     pip install -c constraints.txt -e .[dev]
# Constraints install nothing by themselves: a line counts only where something asks for that \
package.
""", "constraints-lowest.txt": """\
# The lowest versions that were tested, with Python 3.11: the bounds of settings.ini, low \
versions of what the package
# imports besides (numpy, pyarrow, tokenizers, ...), and around these the newest that fit. \
Written by tools/freeze.py;
# used by `make test-lowest`:
#     pip install -c constraints-lowest.txt -e .[tests]
"""}


def needed(name: str, extras: tuple[str, ...] = ()) -> dict[str, str]:
    "The installed version of everything that `name[extras]` needs, itself left out."
    todo, seen, found = [(name, ("", *extras))], set(), {}
    while todo:
        package, wanted = todo.pop()
        for line in metadata.requires(package) or []:
            req = Requirement(line)
            if req.marker and not any(req.marker.evaluate({"extra": e}) for e in wanted):
                continue
            key = (canonicalize_name(req.name), ("", *sorted(req.extras)))
            if key in seen:
                continue
            seen.add(key)
            found[key[0]] = metadata.version(req.name).split("+")[0]
            todo.append(key)
    return found


if __name__ == "__main__":
    name = sys.argv[1] if sys.argv[1:] else "constraints.txt"
    versions = needed("annotated-mpnet", EXTRAS[name])
    kept = {n: v for n, v in versions.items() if not re.match(r"nvidia-|cuda-|triton$", n)}
    (ROOT / name).write_text(HEADS[name] + "".join(f"{n}=={v}\n" for n, v in sorted(kept.items())))
    print(f"{name}: {len(kept)} packages")
