// Looks to choose from, by thumbnails that were dreamed.

import * as api from "./api.js";
import { h } from "./dom.js";

/** Fill a fieldset with a model's looks. `kind` is radio (one) or checkbox (several). */
export function showLooks(fieldset, model, { kind = "radio", chosen = [], onchange = () => {} }) {
  const choices = model.looks.map((look) => {
    const input = h("input", { type: kind, name: `${fieldset.id}-look`, value: look.name, checked: chosen.includes(look.name), onchange: () => onchange(look.name) });
    return h("label", { className: "look", title: look.layers.join(", ") }, input, thumb(model, look), h("b", {}, look.name));
  });
  const strip = fieldset.querySelector(".strip");
  strip.replaceChildren(...choices);
  strip.onscroll = () => fade(strip);
  widths.observe(strip);
}

/** Mark a look as chosen, or none. */
export function markLook(fieldset, name) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === name;
  reveal(fieldset.querySelector(".strip"));
}

/** Bring the chosen look into the part of the strip that is seen. */
function reveal(strip) {
  const look = strip.querySelector(".look:has(:checked)");
  if (look) strip.scrollLeft = look.offsetLeft - (strip.clientWidth - look.offsetWidth) / 2;
  fade(strip);
}

/** Fade the edges behind which there are more. */
function fade(strip) {
  strip.classList.toggle("more-before", strip.scrollLeft > 1);
  strip.classList.toggle("more-behind", strip.scrollLeft + strip.clientWidth < strip.scrollWidth - 1);
}

const widths = new ResizeObserver((entries) => entries.forEach(({ target }) => reveal(target)));

function thumb(model, look) {
  if (!model.here) return h("span", { className: "thumb" }, h("span", {}, "weights are not here yet"));
  return h("span", { className: "thumb" }, h("img", { src: api.thumbnail({ model: model.name, look: look.name }), alt: "", loading: "lazy" }));
}
