"""The shell around every page, a function for each part: head, header, course, contents, footer."""
import html
import re
from dataclasses import dataclass, field
from urllib.parse import quote

import course_map
from bs4 import BeautifulSoup, Tag
from site_html import relative

CELLS = "".join(
    f'<rect class="{kind}" x="{1 + 9 * x}" y="{1 + 9 * y}" width="8" height="8" rx="2"/>'
    for y, row in enumerate(("cmm", "ctm", "ctt")) for x, kind in enumerate(row))
MARK = f'<svg class="mark" viewBox="0 0 28 28" aria-hidden="true"><g>{CELLS}</g></svg>'
ICONS = {
    "search": "M10.5 3a7.5 7.5 0 1 0 4.7 13.3l4.2 4.2 1.4-1.4-4.2-4.2A7.5 7.5 0 0 0 10.5 3Z"
              "m0 2a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11Z",
    "theme": "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 2v14a7 7 0 0 1 0-14Z",
    "menu": "M4 6h16v2H4Zm0 5h16v2H4Zm0 5h16v2H4Z",
}
# The reader's choice of light or dark is restored before anything is drawn.
EARLY = ("try{var t=localStorage.getItem('theme');"
         "if(t)document.documentElement.dataset.theme=t}catch(e){}")
PICTURE_ALT = ("The attention mask of MPNet: blue context, "
               "a green staircase of targets, an orange one of masks.")
PAPER = '<a href="https://arxiv.org/abs/2004.09297" rel="noopener">Song et al., 2020</a>'
# Where the long names of the reference may be broken.
IN_NAMES = re.compile(r"(?<=[a-z]\.)(?=\w)|(?<=[A-Z]_)(?=[A-Z])")


@dataclass
class Site:
    "What is the same on every page."
    title: str
    description: str
    address: str                                # where it is published, without a slash at the end
    repository: str                             # where its source is
    branch: str
    navigation: list["Section"] = field(default_factory=list)
    navbar: list["Link"] = field(default_factory=list)
    minutes: dict[str, int] = field(default_factory=dict) # reading time of each lesson, by its page


@dataclass
class Link:
    "A page in the navigation."
    text: str
    url: str                                    # from the root of the site
    children: list["Link"] = field(default_factory=list)


@dataclass
class Section:
    "A part of the course, or of the site."
    title: str
    links: list[Link]


@dataclass
class Page:
    "One page, ready to be put into the shell."
    url: str
    title: str
    description: str
    main: Tag
    kind: str                                   # front, lesson, guide, reference or error
    source: str                                 # the repository's file that it is made of
    styles: bool = False                        # whether it has formulas


def lesson_number(url: str) -> str:
    "The number of a lesson's page, such as 06b; empty for other pages."
    match = re.match(r"(\d+[a-z]?)_", url)
    return match[1] if match else ""


def read_navigation(index: BeautifulSoup, exists: set[str]) -> list[Section]:
    "The sections and pages that are there in reading order, as laid out from _quarto.yml."
    sections, loose = [], []
    for item in index.select("#quarto-sidebar > .sidebar-menu-container > ul > li"):
        inner = item.find("ul")
        if inner is None:
            loose += read_links([item], exists)
            continue
        title = item.select_one(".sidebar-item-container .menu-text").text.strip()
        sections.append(Section(title, read_links(inner.find_all("li", recursive=False), exists)))
    return [Section("", loose), *(s for s in sections if s.links)]


def read_links(items: list[Tag], exists: set[str]) -> list[Link]:
    "The pages of some entries of the sidebar, with those below each."
    links = []
    for item in items:
        anchor, inner = item.select_one(".sidebar-item-container a[href]"), item.find("ul")
        children = read_links(inner.find_all("li", recursive=False), exists) if inner else []
        if anchor is not None and anchor["href"] in exists:
            links.append(Link(anchor.text.strip(), anchor["href"], children))
    return links


def reading_order(site: Site) -> list[Link]:
    "Every page in the order in which Next walks them."
    top = [link for section in site.navigation for link in section.links]
    return [link for first in top for link in (first, *first.children)]


def icon(name: str) -> str:
    "A small picture for a button."
    return f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{ICONS[name]}"/></svg>'


def head(site: Site, page: Page) -> str:
    "The head: what search engines, social networks and the browser need to know."
    to = lambda target: relative(target, page.url)
    name = site.title if page.kind == "front" else f"{page.title} · {site.title}"
    about = html.escape((page.description or site.description).replace("`", ""), quote=True)
    address = f"{site.address}/{'' if page.url == 'index.html' else page.url}"
    picture = f"{site.address}/docs/assets/social.png"
    title = html.escape(name, quote=True)
    robots, base = f'<link rel="canonical" href="{address}">', ""
    if page.kind == "error":  # shown at any address
        robots = '<meta name="robots" content="noindex">'
        base = f'<base href="/{site.address.split("/", 3)[3]}/">'
    math = f'<link rel="stylesheet" href="{to("docs/assets/math.css")}">' if page.styles else ""
    font = to("docs/assets/fonts/literata-latin-wght-normal.woff2")
    return f"""<meta charset="utf-8">
{base}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{about}">
{robots}
<meta property="og:type" content="{'website' if page.kind == 'front' else 'article'}">
<meta property="og:site_name" content="{html.escape(site.title)}">
<meta property="og:title" content="{title}">
<meta property="og:description" content="{about}">
<meta property="og:url" content="{address}">
<meta property="og:image" content="{picture}">
<meta property="og:image:alt" content="{PICTURE_ALT}">
<meta name="twitter:card" content="summary_large_image">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{to('docs/assets/mark.svg')}" type="image/svg+xml">
<link rel="preload" href="{font}" as="font" type="font/woff2" crossorigin>
<link rel="stylesheet" href="{to('docs/assets/site.css')}">
{math}<script>{EARLY}</script>
<script src="{to('docs/assets/site.js')}" defer data-index="{to('search-index.js')}"></script>"""


def header(site: Site, page: Page) -> str:
    "The bar at the top."
    links, home = "", relative("index.html", page.url)
    for link in site.navbar:
        target = link.url if "://" in link.url else relative(link.url, page.url)
        links += f'<a href="{target}">{link.text}</a>'
    menu = 'type="button" popovertarget="page-course" aria-label="Contents of the site"'
    find = 'type="button" data-search aria-label="Search" aria-keyshortcuts="/"'
    theme = 'type="button" data-theme-switch aria-label="Light or dark"'
    return f"""<header class="top">
<button class="plain only-narrow" {menu}>{icon("menu")}</button>
<a class="home" href="{home}">{MARK}<span>{html.escape(site.title)}</span></a>
<nav class="bar" aria-label="Main">{links}</nav>
<button class="find" {find}>{icon("search")}<span>Search</span><kbd>/</kbd></button>
<button class="plain" {theme}>{icon("theme")}</button>
</header>"""


def course_link(site: Site, page: Page, link: Link) -> str:
    "One page in the course's list, with those below it folded unless they are being read."
    here = ' aria-current="page"' if link.url == page.url else ""
    number, minutes = lesson_number(link.url), site.minutes.get(link.url)
    label = f'<span class="number">{number}</span>' if number else ""
    label += f"<span>{link.text}</span>"
    label += f'<span class="minutes">{minutes} min</span>' if minutes else ""
    line = f'<a href="{relative(link.url, page.url)}"{here}>{label}</a>'
    if link.children:
        inner = "".join(f"<li>{course_link(site, page, child)}</li>" for child in link.children)
        is_open = " open" if any(page.url in (link.url, c.url) for c in link.children) else ""
        line += f'<details{is_open}><summary>Modules</summary><ul>{inner}</ul></details>'
    return line


def course(site: Site, page: Page) -> str:
    "The list of all pages; on a narrow screen it opens from the bar."
    parts = []
    for section in site.navigation:
        items = "".join(f"<li>{course_link(site, page, link)}</li>" for link in section.links)
        title = f'<p class="part">{section.title}</p>' if section.title else ""
        parts.append(f"{title}<ul>{items}</ul>")
    attributes = 'class="course" id="page-course" popover aria-label="Course and pages"'
    return f"<nav {attributes}>{''.join(parts)}</nav>"


def contents(page: Page) -> str:
    "The sections of the page."
    items = []
    for heading in page.main.find_all(["h2", "h3"]):
        anchor = heading.find("a", class_="anchor")
        if anchor is not None:
            text = "".join(str(c) for c in heading.contents if c is not anchor)
            text = re.sub(r"</?a\b[^>]*>", "", text)
            if page.kind == "reference":
                text = IN_NAMES.sub("<wbr>", text)
            items.append(f'<li class="{heading.name}"><a href="{anchor["href"]}">{text}</a></li>')
    if len(items) < 2:
        return ""
    summary = '<summary id="page-contents">On this page</summary>'
    details = f"<details open>{summary}<ul>{''.join(items)}</ul></details>"
    return f'<nav class="contents" aria-labelledby="page-contents">{details}</nav>'


def title_block(site: Site, page: Page) -> str:
    "The title, what the page is for, how long it takes, and where its notebook is."
    number = lesson_number(page.url)
    lesson = f"Lesson {number}" if number else ""
    kicker = " · ".join(x for x in (section_of(site, page), lesson) if x)
    above = f'<p class="kicker">{kicker}</p>' if kicker else ""
    lead = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(page.description, quote=False))
    below = f'<p class="lead">{lead}</p>' if lead else ""
    facts = f'<p class="facts">{"".join(page_facts(site, page))}</p>'
    lessons = {lesson_number(link.url): relative(link.url, page.url) for link in reading_order(site)
               if lesson_number(link.url)}
    map_ = course_map.block(number, lessons) if number else ""
    return f'<div class="title">{above}<h1>{page.title}</h1>{below}{facts}{map_}</div>'


def section_of(site: Site, page: Page) -> str:
    "The title of the section that a page is in."
    for section in site.navigation:
        for link in section.links:
            if page.url in (x.url for x in (link, *link.children)):
                return section.title
    return ""


def page_facts(site: Site, page: Page) -> list[str]:
    "How long a lesson takes, and where the source of a page is."
    facts = []
    source = f"blob/{site.branch}/{page.source}"
    if lesson_number(page.url):
        minutes = site.minutes.get(page.url)
        repository = site.repository.split("/", 3)[3]
        colab = f"https://colab.research.google.com/github/{repository}/{source}"
        notebook = relative(f"notebooks/{page.source.split('/')[-1]}", page.url)
        facts = [f"<span>{minutes} minutes to read</span>" if minutes else "",
                 f'<a href="{notebook}" download>Download the notebook</a>',
                 f'<a href="{colab}" rel="noopener">Open in Colab</a>']
    if page.source:
        facts.append(f'<a href="{site.repository}/{source}" rel="noopener">Source</a>')
    if page.source and page.kind != "reference":   # those pages are generated
        edit = f"{site.repository}/edit/{site.branch}/{page.source}"
        title = quote(f"{page.source}: ")
        problem = f"{site.repository}/issues/new?title={title}"
        facts += [f'<a href="{edit}" rel="noopener">Edit this page</a>',
                  f'<a href="{problem}" rel="noopener">Report a problem</a>']
    return facts


def front_title(site: Site, page: Page) -> str:
    "The front page's own beginning."
    first = next(link for link in reading_order(site) if lesson_number(link.url))
    name = html.escape(page.title)
    kicker = '<p class="kicker">Masked and permuted pretraining</p>'
    doors = (f'<a class="door" href="{first.url}">Read the first lesson</a>'
             '<a class="door quiet" href="docs/explorer.html">Try one in your browser</a>'
             '<a class="door quiet" href="#two-commands">Train one in minutes</a>')
    return f"""<div class="title front">{kicker}<h1>{name}</h1>
<p class="lead">{html.escape(page.description, quote=False)}</p>
<p class="doors">{doors}</p></div>"""


def steps(site: Site, page: Page) -> str:
    "Previous and next, in reading order."
    order = reading_order(site)
    at = next((i for i, link in enumerate(order) if link.url == page.url), None)
    if at is None:
        return ""
    def line(link: Link, rel: str, word: str) -> str:
        name = f"{lesson_number(link.url)} {link.text}".lstrip()
        inside = f'<span class="word">{word}</span><span class="name">{name}</span>'
        return f'<a rel="{rel}" href="{relative(link.url, page.url)}">{inside}</a>'

    before = line(order[at - 1], "prev", "Previous") if at else "<span></span>"
    after = line(order[at + 1], "next", "Next") if at + 1 < len(order) else ""
    return f'<nav class="steps" aria-label="Previous and next">{before}{after}</nav>'


def footer(site: Site, page: Page) -> str:
    "The end of every page."
    links = {
        "docs/changelog.html": "Changelog",
        "docs/contributing.html": "Contributing",
        "llms.txt": "llms.txt",
    }
    known = {link.url for link in reading_order(site)} | {"llms.txt"}
    shown = "".join(f'<a href="{relative(url, page.url)}">{text}</a>'
                    for url, text in links.items() if url in known)
    said = f"MIT licence. The method is that of {PAPER}; code and words are ours."
    return f"""<footer class="end"><p>{said}</p>
<p class="links"><a href="{site.repository}" rel="noopener">Repository</a>{shown}</p></footer>"""


SEARCH = (
    '<dialog class="search" aria-label="Search"><form method="dialog" role="search">'
    '<input type="text" id="search-words" enterkeyhint="search" '
    'placeholder="Search lessons, arguments, names" aria-label="Search lessons, arguments, names" '
    'autocomplete="off" spellcheck="false">'
    '<button type="button" class="plain" data-close>Close</button></form>'
    '<p class="count" role="status"></p><ol class="found"></ol></dialog>'
)


def whole(site: Site, page: Page) -> str:
    "The whole document."
    title = front_title(site, page) if page.kind == "front" else title_block(site, page)
    inside = contents(page) if page.kind != "front" else ""
    return f"""<!doctype html>
<html lang="en">
<head>
{head(site, page)}
</head>
<body class="{page.kind}">
<a class="skip" href="#page-text">Skip to the text</a>
{header(site, page)}
<div class="frame">
{course(site, page)}
<main id="page-text" tabindex="-1">
{title}
{inside}
<article>
{page.main.decode_contents()}
</article>
{steps(site, page)}
</main>
</div>
{footer(site, page)}
{SEARCH}
</body>
</html>
"""


def sitemap(site: Site, urls: list[str]) -> str:
    "The addresses of all pages, for search engines."
    pages = ["" if url == "index.html" else url for url in urls]
    rows = "".join(f"  <url><loc>{site.address}/{page}</loc></url>\n" for page in pages)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}</urlset>\n')


def llms(site: Site, pages: dict[str, Page]) -> str:
    "The map of the site for language models: every page in order, its purpose and its plain text."
    lines = [f"# {site.title}", "", f"> {site.description}", ""]
    for section in site.navigation:
        lines += [f"## {section.title or 'Start'}", ""]
        for first in section.links:
            for link in (first, *first.children):
                number, page = lesson_number(link.url), pages[link.url]
                name = f"{number} {link.text}".strip()
                about = f": {page.description}" if page.description else ""
                text = f"{site.address}/{link.url.removesuffix('.html')}.md"
                lines.append(f"- [{name}]({text}){about}")
        lines.append("")
    return "\n".join(lines)
