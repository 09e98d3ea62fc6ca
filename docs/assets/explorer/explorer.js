// Puts the views where a page asks for them: <div data-explorer="lanes"></div>.

const places = [...document.querySelectorAll("[data-explorer]")];

async function begin() {
  try {
    const {open} = await import("./store.js");
    const store = await open();
    for (const place of places) {
      const name = place.dataset.explorer; // of a module and of its function
      const module = await import(`./${name}.js`);
      place.classList.add("explorer");
      module[name](place, store);
    }
  } catch (error) {
    for (const place of places) place.textContent = `The explorer can't begin: ${error.message}`;
    throw error;
  }
}

// Nothing more is fetched before a reader comes near one of them.
const observer = new IntersectionObserver(entries => {
  if (!entries.some(entry => entry.isIntersecting)) return;
  observer.disconnect();
  begin();
}, {rootMargin: "600px"});
for (const place of places) observer.observe(place);
