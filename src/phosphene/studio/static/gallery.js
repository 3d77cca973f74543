// The folder's dreams. Opening one restores its settings from the recipe that it carries.

import * as api from "./api.js";
import { $, h } from "./dom.js";

/** Fill the gallery with what is in the folder now. */
export async function showGallery() {
  const names = await api.pictures();
  const tiles = names.map((name) => h("li", {}, h("a", { href: `#picture/${encodeURIComponent(name)}` },
    h("img", { src: api.viewOfPicture(name, 480), alt: "", loading: "lazy" }), name)));
  $("gallery-view").replaceChildren(h("h2", {}, "Gallery"),
    names.length ? h("ul", {}, ...tiles) : h("p", { className: "empty" }, "Nothing has been dreamed in this folder yet. What you dream is kept here, each picture with the recipe that makes it again."));
}
