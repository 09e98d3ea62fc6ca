"""The site's search index: an entry for each section, public name and argument, in JavaScript.

A script and not JSON, so that search also works on pages that are opened from a folder.
"""
import json
import re

from bs4 import Tag

NAME = re.compile(r"[A-Za-z][A-Za-z_]{3,}")  # of code, a name is searched, once
LONGEST = 4000  # characters of a section's text that are searched


def words(element: Tag) -> str:
    "The text of an element on one line, without what only screens show."
    return re.sub(r"\s+", " ", element.get_text(" ")).strip()


def prose_and_code(parts: list[Tag]) -> tuple[str, str]:
    "The text of some elements, each on one line: what stands in blocks of code is kept apart."
    found: dict[bool, list[str]] = {False: [], True: []}
    for part in parts:
        for string in part.find_all(string=True):
            found[string.find_parent("pre") is not None].append(string)
        found[False].append(" ")
    prose, code = (re.sub(r"\s+", " ", "".join(strings)).strip() for strings in found.values())
    return prose, code


def entry(url: str, title: str, heading: str, kind: str, text: str, code: str,
          terms: list[str]) -> dict:
    "An entry, under the short names that the site's script reads."
    return {"u": url, "t": title, "h": heading, "k": kind, "x": text, "c": code, "e": terms}


def sections(main: Tag, url: str, title: str, kind: str) -> list[dict]:
    "An entry for what stands before the first heading, and one for each section by itself."
    found = []
    for section in [main, *main.find_all("section")]:
        whole = section is main
        inner = section.find_all("section", recursive=whole)
        heading = None if whole else section.find(["h2", "h3", "h4"], recursive=False)
        tags = (c for c in section.children if isinstance(c, Tag))
        parts = [c for c in tags if c not in inner and c is not heading]
        prose, code = prose_and_code(parts)
        emphasized = [t for p in parts for t in p.find_all(["em", "strong"])]
        terms = {words(term).lower().rstrip(".:") for term in emphasized}
        name = words(heading).removesuffix("#").strip() if heading else ""
        anchor = "" if whole else f"#{section['id']}"
        names = " ".join(sorted(set(NAME.findall(code))))
        found.append(entry(url + anchor, title, name, kind, prose[:LONGEST], names,
                           sorted(term for term in terms if len(term) < 40)))
    return found


def argument_entries(main: Tag, url: str) -> list[dict]:
    "An entry for each row of the tables of arguments."
    rows = {row["id"]: words(row) for row in main.select("table.arguments tbody tr[id]")}
    return [entry(f"{url}#{name}", "Configuration", f"--{name}", "argument", text, "", [])
            for name, text in rows.items()]


def glossary_entries(main: Tag, url: str) -> list[dict]:
    "An entry for each word of the glossary."
    items = [(item.find("a", id=True), item) for item in main.find_all("li")]
    return [entry(f"{url}#{anchor['id']}", "Glossary", words(item.strong).rstrip("."), "term",
                  words(item), "", [words(item.strong).lower().rstrip(".")])
            for anchor, item in items if anchor and item.strong]


def write(entries: list[dict]) -> str:
    "The index as a script."
    lines = ",\n".join(json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in entries)
    return f"window.searchIndex = [\n{lines}\n];\n"
