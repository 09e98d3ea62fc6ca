"""Print what CHANGELOG.md says of a release where all files name its version; else what is wrong.

    python tools/release_notes.py v0.2.0
"""
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def settings_version(root: Path = ROOT) -> str:
    "The version in settings.ini, which is that of the package."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]["version"]


def citation(root: Path = ROOT) -> dict:
    "What CITATION.cff says."
    return yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))


def changes(version: str, root: Path = ROOT) -> tuple[str, str]:
    "The date of a version in CHANGELOG.md, and what changed; both empty where it isn't there."
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    part = re.search(rf"^## \[{re.escape(version)}\] - (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return (part[1], part[2].strip()) if part else ("", "")


def problems(tag: str, root: Path = ROOT) -> list[str]:
    "What has to be set right before `tag` is a release."
    version = settings_version(root)
    cited, (date, _) = citation(root), changes(version, root)
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, settings.ini has version {version}")
    if cited["version"] != version:
        found.append(f"CITATION.cff has version {cited['version']}, settings.ini {version}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        found.append(f"CHANGELOG.md has no `## [{version}] - ` with a date")
    elif str(cited.get("date-released")) != date:
        found.append(f"CHANGELOG.md has the date {date}, CITATION.cff no `date-released: {date}`")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if found := problems(sys.argv[1]):
        sys.exit("\n".join(found))
    print(changes(settings_version())[1])
