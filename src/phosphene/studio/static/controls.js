// One control for each kind of setting. Each is { element, set(value) }, and calls `change(value)` when a person acts.

import * as api from "./api.js";
import { h } from "./dom.js";

/** Set a field's value, but not while a person types into it: the answer to an earlier change would undo that. */
function setter(element) {
  let typing = false;
  element.addEventListener("input", () => (typing = true));
  for (const end of ["change", "blur"]) element.addEventListener(end, () => (typing = false));
  return (value) => { if (!typing) element.value = value; };
}

/** A number in its range. */
export function number(change, { type, minimum, maximum, exclusiveMinimum }) {
  const element = h("input", {
    type: "number", step: type === "integer" ? 1 : "any", min: minimum ?? exclusiveMinimum ?? "", max: maximum ?? "", required: true,
    onchange: () => element.value !== "" && change(Number(element.value)),
  });
  return { element, set: setter(element) };
}

/** On or off. */
export function toggle(change) {
  const element = h("input", { type: "checkbox", onchange: () => change(element.checked) });
  return { element, set: (value) => (element.checked = value) };
}

/** One of a few words. */
export function choice(change, words) {
  const element = h("select", { onchange: () => change(element.value) }, ...words.map((word) => h("option", { value: word }, word.replaceAll("_", " "))));
  return { element, set: (value) => (element.value = value) };
}

/** A word. */
export function word(change) {
  const element = h("input", { type: "text", spellcheck: false, onchange: () => element.value && change(element.value.trim()) });
  return { element, set: setter(element) };
}

/** A word, some of which are known. */
export function suggestion(change, words, listId) {
  const list = h("datalist", { id: `${listId}-known` }, ...words.map((word) => h("option", { value: word })));
  document.body.append(list);
  const { element, set } = word(change);
  element.setAttribute("list", list.id);
  return { element, set };
}

/** A number, or a word in its place, as "full"; nothing is the default. */
export function wordOrNumber(change, usual) {
  const element = h("input", {
    type: "text", spellcheck: false, placeholder: usual,
    onchange: () => { const text = element.value.trim() || String(usual); change(/^\d+$/.test(text) ? Number(text) : text); },
  });
  return { element, set: setter(element) };
}

/** Several terms, NAME:WEIGHT each, with a weight of their own; `browse` opens a browser to pick them from. */
export function terms(change, kind, browse = null) {
  const element = h("div", { className: "terms" });
  const read = () => [...element.querySelectorAll(".term")].map((row) => {
    const [name, weight] = row.querySelectorAll("input");
    return name.value.trim() && (Number(weight.value) === 1 ? name.value.trim() : `${name.value.trim()}:${Number(weight.value)}`);
  }).filter(Boolean);
  const row = (text) => {
    const [, name, weight] = text.match(/^(.*?)(?::([-+.\deE]+))?$/);
    const line = h("div", { className: "term" },
      h("input", { type: "text", value: name, spellcheck: false, "aria-label": `Name of a ${kind}`, onchange: () => change(read()) }),
      h("input", { type: "number", step: "any", value: weight ?? 1, "aria-label": `Weight of ${name || "it"}`, onchange: () => change(read()) }),
      h("button", { type: "button", className: "quiet", "aria-label": `Remove ${name || "it"}`, onclick: () => { line.remove(); change(read()); } }, "Remove"));
    return line;
  };
  const add = h("button", { type: "button", className: "plain", onclick: () => {
    if (browse) return browse();
    const line = row("");
    add.before(line);
    return line.querySelector("input").focus();
  } }, browse ? "Browse layers" : "Add");
  return { element, wide: true, set: (values) => element.replaceChildren(...values.map(row), add) };
}

/** A picture beside the photograph: chosen from a file, or painted. */
export function attached(change, upload, paint = null) {
  const element = h("div", { className: "attached" });
  const file = h("input", { type: "file", accept: "image/*", className: "unseen", tabIndex: -1, "aria-hidden": "true", onchange: async () => {
    const kept = file.files[0] && (await upload(file.files[0]));
    file.value = "";
    if (kept) change(kept);
  } });
  const button = (text, onclick) => h("button", { type: "button", className: "plain", onclick }, text);
  const set = (name) => element.replaceChildren(...[
    name && h("img", { src: api.viewOfPhotograph(name, 480), alt: name }),
    paint && button("Paint", async () => { const kept = await paint(); if (kept) change(kept); }),
    button("Choose a file", () => file.click()),
    name && h("button", { type: "button", className: "quiet", onclick: () => change(null) }, "Remove"),
    file,
  ].filter(Boolean));
  return { element, wide: true, set };
}
