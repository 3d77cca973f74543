// Looks to choose from, by thumbnails that were dreamed.

import * as api from "./api.js";
import { h } from "./dom.js";

/** Fill a fieldset with a model's looks. `kind` is radio (one) or checkbox (several). */
export function showLooks(fieldset, model, { kind = "radio", chosen = [], onchange = () => {} }) {
  const choices = model.looks.map((look) => {
    const input = h("input", { type: kind, name: `${fieldset.id}-look`, value: look.name, checked: chosen.includes(look.name), onchange: () => onchange(look.name) });
    return h("label", { className: "look", title: look.layers.join(", ") }, input, thumb(model, look), h("b", {}, look.name));
  });
  fieldset.querySelector(".strip").replaceChildren(...choices);
}

/** Mark a look as chosen, or none. */
export function markLook(fieldset, name) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === name;
}

function thumb(model, look) {
  if (!model.here) return h("span", { className: "thumb" }, h("span", {}, "weights are not here yet"));
  return h("span", { className: "thumb" }, h("img", { src: api.thumbnail({ model: model.name, look: look.name }), alt: "", loading: "lazy" }));
}
