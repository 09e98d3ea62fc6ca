"""Packaging: every value stands in settings.ini (nbdev 2's own layout)."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
STATUS = {
    "1": "Planning",
    "2": "Pre-Alpha",
    "3": "Alpha",
    "4": "Beta",
    "5": "Production/Stable",
    "6": "Mature",
    "7": "Inactive",
}
PYTHONS = ("3.11", "3.12", "3.13")


def words(key: str) -> list[str]:
    "The value of `key` split at white space."
    return cfg.get(key, "").split()


readme = HERE / "README.md"
corpus = words("corpus_requirements")
notebooks = words("notebooks_requirements")
setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license=cfg["license"].upper(),
    author=cfg["author"],
    url=cfg["git_url"],
    keywords=cfg["keywords"],
    classifiers=[
        f"Development Status :: {cfg['status']} - {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        *(f"Programming Language :: Python :: {p}" for p in PYTHONS),
    ],
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    # Its annotations hold (PEP 561); lessons read stored experiments and small models.
    package_data={cfg["lib_path"]: ["py.typed", "course/**"]},
    install_requires=words("requirements"),
    extras_require={
        "corpus": corpus,
        "notebooks": notebooks + corpus,
        "wandb": words("wandb_requirements"),
        "dev": words("dev_requirements") + notebooks + corpus,
        # what the tests need without the lessons: datatrove asks for NumPy 2, which the lowest
        # versions of the rest don't go with
        "tests": words("dev_requirements") + notebooks,
    },
    entry_points={
        "console_scripts": words("console_scripts"),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
