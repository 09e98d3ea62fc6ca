"""Write docs/configuration.md, the reference of every argument, from the package itself."""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"


def page() -> str:
    "The text of docs/configuration.md."
    from annotated_mpnet.configuration import docs_table

    return docs_table().rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print("wrote docs/configuration.md")
