// What a page does beside being read: light or dark, search, copying, and knowing where the reader is.
"use strict";

const here = document.currentScript;

// light or dark
document.querySelector("[data-theme-switch]").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch (e) { /* private browsing */ }
});

// copying code
for (const block of document.querySelectorAll(".code")) {
  const button = Object.assign(document.createElement("button"), {type: "button", className: "copy", textContent: "Copy"});
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  block.append(button);
}

// what is wider than its frame can be scrolled with the keyboard too, and fades out where it goes on
function reach() {
  for (const box of document.querySelectorAll("pre, .table, .cell-output-display, .formula.display, figure p, .picture")) {
    const wide = getComputedStyle(box).overflowX !== "visible" && box.scrollWidth > box.clientWidth + 1;
    if (wide && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Wide content, can be scrolled sideways");
      if (!box.matches(".table")) box.addEventListener("scroll", () => fade(box), {passive: true});
    }
    if (!box.matches(".table")) fade(box);
  }
}
function fade(box) {
  const left = box.scrollWidth - box.clientWidth - box.scrollLeft;
  box.classList.toggle("more", getComputedStyle(box).overflowX !== "visible" && left > 2);
}
reach();
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);

// some browsers leave room behind a root for the widest sign that they know
document.fonts.ready.then(() => {
  for (const root of document.querySelectorAll("msqrt")) {
    const gap = root.getBoundingClientRect().right - root.lastElementChild.getBoundingClientRect().right;
    if (gap > 1) root.style.marginRight = `${-gap / parseFloat(getComputedStyle(root).fontSize)}em`;
  }
});

// the contents: folded on a narrow screen, else the section that is being read is marked
const contents = document.querySelector(".contents");
if (contents) {
  if (matchMedia("(max-width: 80rem)").matches) contents.querySelector("details").open = false;
  const links = new Map([...contents.querySelectorAll("a")].map(a => [a.hash.slice(1), a]));
  const headings = [...document.querySelectorAll("article section[id]")].filter(s => links.has(s.id));
  const mark = () => {
    const current = headings.filter(s => s.getBoundingClientRect().top < 140).pop();
    for (const link of links.values()) link.classList.toggle("here", current !== undefined && link === links.get(current.id));
  };
  addEventListener("scroll", mark, {passive: true});
  mark();
}
const current = document.querySelector(".course [aria-current]");
if (current) {
  const course = document.querySelector(".course");
  course.scrollTop = current.offsetTop - course.clientHeight / 2;
}

// search: engine and index are fetched when they are first needed
const dialog = document.querySelector("dialog.search");
const input = dialog.querySelector("input");
const found = dialog.querySelector(".found");
const count = dialog.querySelector(".count");
const indexUrl = new URL(here.dataset.index, location.href.split("#")[0].split("?")[0] === document.baseURI.split("#")[0] ? location.href : document.baseURI);
const engine = ["libraries.js", "engine.js"].map(name => new URL(`docs/assets/search/${name}`, indexUrl));
let ready = null;

const loaded = url => new Promise((done, fail) => {
  document.head.append(Object.assign(document.createElement("script"), {src: url, onload: done, onerror: fail}));
});

function loadSearch() {
  ready ||= (async () => {
    for (const url of [...engine, indexUrl]) await loaded(url);
    return makeSearch(searchIndex);
  })();
  return ready;
}

function excerpt(text, words) {
  const at = Math.max(0, ...words.map(w => text.toLowerCase().indexOf(w)));
  const start = Math.max(0, at - 40);
  return (start ? "…" : "") + text.slice(start, start + 160);
}

function marked(text, words) {
  const parts = text.split(new RegExp(`(${words.map(w => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "i"));
  return parts.map((part, i) => i % 2 ? Object.assign(document.createElement("mark"), {textContent: part}) : part);
}

async function search() {
  const whole = input.value.trim().toLowerCase();
  if (!whole) { found.replaceChildren(); count.textContent = ""; return; }
  const all = (await loadSearch())(whole);
  if (input.value.trim().toLowerCase() !== whole) return;
  count.textContent = all.length ? `${all.length} ${all.length === 1 ? "place" : "places"}` : "Nothing found. Try a shorter word.";
  found.replaceChildren(...all.slice(0, 25).map(entry => {
    const words = entry.terms;   // those of the index that the query met, as stems
    const link = Object.assign(document.createElement("a"), {href: new URL(entry.u, indexUrl)});
    const name = document.createElement("b");
    name.append(...marked(entry.h || entry.t, words));
    const where = Object.assign(document.createElement("span"), {className: "where", textContent: entry.h ? entry.t : ""});
    const what = Object.assign(document.createElement("span"), {className: "what"});
    what.append(...marked(excerpt(entry.x, words), words));
    link.append(name, where, what);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
}

function openSearch() {
  if (!dialog.open) dialog.showModal();
  input.select();
  loadSearch();
}

document.querySelector("[data-search]").addEventListener("click", openSearch);
input.addEventListener("input", search);
dialog.addEventListener("click", event => { if (event.target === dialog || event.target.closest(".found a, [data-close]")) dialog.close(); });
dialog.querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  const first = found.querySelector("a");
  if (first) first.click();
});
dialog.addEventListener("keydown", event => {
  const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!move) return;
  event.preventDefault();
  const places = [input, ...found.querySelectorAll("a")];
  (places[places.indexOf(document.activeElement) + move] || input).focus();
});
addEventListener("keydown", event => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName) || document.activeElement.isContentEditable;
  if ((event.key === "/" && !typing) || (event.key === "k" && (event.ctrlKey || event.metaKey))) { event.preventDefault(); openSearch(); }
});

// A reader's own marks, kept in this browser alone: lessons that were read, exercises that were done.
const marks = {
  read() { try { return JSON.parse(localStorage.getItem("marks")) || {}; } catch (e) { return {}; } },
  set(name, on) {
    const all = this.read();
    if (on) all[name] = 1; else delete all[name];
    try { localStorage.setItem("marks", JSON.stringify(all)); } catch (e) { /* private browsing */ }
  },
};

function markBox(name, text, changed = () => {}) {
  const box = Object.assign(document.createElement("input"), {type: "checkbox", checked: name in marks.read()});
  box.addEventListener("change", () => { marks.set(name, box.checked); changed(); });
  const label = Object.assign(document.createElement("label"), {className: "done"});
  label.append(box, ` ${text}`);
  return label;
}

const pageName = location.pathname.split("/").pop() || "index.html";

function showRead() {
  const all = marks.read();
  for (const link of document.querySelectorAll(".course a")) {
    const isRead = link.pathname.split("/").pop() in all;
    link.classList.toggle("read", isRead);
    link.title = isRead ? "Marked as read" : "";
  }
}

if (document.querySelector(".title .kicker")?.textContent.includes("Lesson")) {
  const exercises = [...document.querySelectorAll("section#exercises p")].filter(p => /^\d\./.test(p.querySelector("strong:first-child")?.textContent));
  for (const p of exercises) p.append(" ", markBox(`${pageName}#${parseInt(p.textContent)}`, "Done"));
  document.querySelector("nav.steps")?.before(markBox(pageName, "I have read this lesson", showRead));
}
showRead();
