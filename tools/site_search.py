"""The site's search index: an entry for each section, each public name and each argument, as one file of JavaScript.

A script and not JSON, so that search also works on pages that are opened from a folder.
"""
import json
import re

from bs4 import Tag

LONGEST = 4000  # characters of a section's text that are searched


def words(element: Tag) -> str:
    "The text of an element on one line, without what only screens show."
    return re.sub(r"\s+", " ", element.get_text(" ")).strip()


def sections(main: Tag, url: str, title: str, kind: str) -> list[dict]:
    "An entry for what stands before the first heading, and one for each section without the sections within it."
    found = []
    for section in [main, *main.find_all("section")]:
        inner = section.find_all("section", recursive=False) if section is not main else main.find_all("section")
        heading = section.find(["h2", "h3", "h4"], recursive=False) if section is not main else None
        parts = [c for c in section.children if isinstance(c, Tag) and c not in inner and c is not heading]
        text = " ".join(words(p) for p in parts)
        terms = sorted({words(t).lower() for p in parts for t in p.find_all(["em", "strong"]) if len(words(t)) < 40})
        name = words(heading).removesuffix("#").strip() if heading else ""
        anchor = f"#{section['id']}" if section is not main else ""
        found.append({"u": url + anchor, "t": title, "h": name, "k": kind, "x": text[:LONGEST], "e": terms})
    return found


def argument_entries(main: Tag, url: str) -> list[dict]:
    "An entry for each row of the tables of arguments."
    rows = main.select("table.arguments tbody tr[id]")
    return [{"u": f"{url}#{row['id']}", "t": "Configuration", "h": f"--{row['id']}", "k": "argument", "x": words(row), "e": []} for row in rows]


def write(entries: list[dict]) -> str:
    "The index as a script."
    lines = ",\n".join(json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in entries)
    return f"window.searchIndex = [\n{lines}\n];\n"
