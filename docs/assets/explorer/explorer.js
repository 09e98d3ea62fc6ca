// Puts the views where a page asks for them: <div data-explorer="lanes"></div>.
import {make, open} from "./page.js";

const VIEWS = { // name -> the module that draws it
  lanes: "lanes", pairs: "pairs", missing: "missing", order: "order", grid: "grid", numbers: "numbers",
  biases: "biases", broken: "broken", challenge: "challenge",
};

async function begin() {
  const places = [...document.querySelectorAll("[data-explorer]")];
  try {
    const store = await open();
    for (const place of places) {
      const name = VIEWS[place.dataset.explorer];
      const module = await import(`./${name}.js`);
      place.classList.add("explorer");
      module[name](place, store);
    }
  } catch (error) {
    for (const place of places) {
      place.append(make("p", {role: "alert"}, `The explorer can't begin: ${error.message}`));
    }
    throw error;
  }
}

begin();
