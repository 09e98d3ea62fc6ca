"""The package as its users get it: the wheel, in an environment with only what it requires.

    python tools/alone.py FOLDER          makes it with what the lessons need, says how to use it
    python tools/alone.py FOLDER WHEEL    the same with a wheel that is there already

What is required is linked from the environment that runs this, so nothing is fetched.
"""
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import freeze

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "annotated_mpnet"
PARTS = ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


def pip(*arguments: object) -> None:
    "Run pip, which says nothing and fetches nothing."
    command = [sys.executable, "-m", "pip", *map(str, arguments), "-qq", "--no-deps"]
    subprocess.run(command, check=True)


def wheel(folder: Path) -> Path:
    "Build the wheel in an empty folder, from the package alone: no notebooks, no tests."
    source, built = folder / "source", folder / "built"
    source.mkdir()
    for name in PARTS:
        shutil.copy(ROOT / name, source)
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / PACKAGE, source / PACKAGE, ignore=skipped)
    pip("wheel", "--no-build-isolation", "-w", built, source)
    return next(built.glob("*.whl"))


def environment(folder: Path, # where to make it
                wheel: Path, # what to install in it
                extras: tuple[str, ...] = (), # of the package: what they need is linked, too
               ) -> Path: # its Python
    "A new environment with a wheel and what the wheel requires."
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("[Ll]ib*/**/site-packages"))
    for name in freeze.needed("annotated-mpnet", extras):
        distribution = metadata.distribution(name)
        for top in {f.parts[0] for f in distribution.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    pythons = (folder / "bin" / "python", folder / "Scripts" / "python.exe")
    python = next(p for p in pythons if p.exists())
    pip("--python", python, "install", wheel)
    return python


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    place, *given = (Path(name).resolve() for name in sys.argv[1:])
    place.mkdir(parents=True)
    package = given[0] if given else wheel(place)
    print(environment(place / "venv", package, ("notebooks",)), "-m nbclient.cli LESSON.ipynb")
