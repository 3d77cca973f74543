// The browser of layers: each with a thumbnail, dreamed when it comes into view and kept for the next time. Those of the
// chosen layers are dreamed first.

import * as api from "./api.js";
import { $, h } from "./dom.js";

let queue = Promise.resolve();
let opened = 0;

/**
 * Open the browser for a model; `isChosen(name)` says what is raised now, `toggle(name)` adds or removes a layer, and
 * `channels`, if it is given, gets and sets a chosen layer's channels.
 */
export async function browseLayers(model, weights, isChosen, toggle, channels = null) {
  $("browser-title").textContent = `Layers of ${model}`;
  $("browser-about").textContent = "Reading the network";
  $("browser-tiles").replaceChildren();
  $("browser-count").textContent = "";
  $("browser-filter").value = "";
  $("browser").showModal();
  const { layers, model: card } = await api.layers(model).catch((error) => { $("browser").close(); throw error; });
  const drawable = card.here || weights === "untrained";
  opened += 1;
  $("browser-about").textContent = drawable
    ? "From the first to the last: early layers draw strokes, later ones objects. Each picture is a small dream of that layer alone, on a sample."
    : `The weights of ${model} are not on this machine, so its layers have no pictures yet. They are fetched when it first dreams.`;
  const tile = (layer) => layerTile(layer, drawable ? { model, weights, layer: layer.name } : null, isChosen, toggle, channels);
  const suggested = layers.filter((layer) => layer.suggested);
  const others = layers.filter((layer) => !layer.suggested);
  $("browser-tiles").replaceChildren(
    ...(suggested.length ? [h("h3", {}, "Suggested"), ...suggested.map(tile)] : []),
    ...(others.length ? [h("h3", {}, suggested.length ? "All others" : "All"), ...others.map(tile)] : []));
  if (drawable) count();
}

/** Say how many of the pictures are there. */
function count() {
  const thumbs = [...$("browser-tiles").querySelectorAll(".thumb")];
  $("browser-count").textContent = `${thumbs.filter((thumb) => thumb.querySelector("img")).length} of ${thumbs.length} pictures`;
}

function layerTile(layer, asked, isChosen, toggle, channels) {
  const thumb = h("span", { className: "thumb" });
  const sees = layer.sees === null ? "sees all" : `sees ${layer.sees} px`;
  const field = channels && channelsField(layer, channels);
  const show = () => {
    tile.setAttribute("aria-pressed", isChosen(layer.name));
    if (!field) return;
    field.hidden = !isChosen(layer.name);
    field.lastChild.value = channels.get(layer.name);
  };
  const tile = h("button", { type: "button", className: "tile", onclick: () => {
    toggle(layer.name);
    show();
  } }, thumb, h("b", {}, layer.name), h("small", {}, `${layer.channels} channels`), h("small", {}, sees));
  const element = h("div", { className: "layer" }, tile, field);
  element.dataset.name = layer.name.toLowerCase();
  show();
  if (asked && isChosen(layer.name)) draw(thumb, asked);
  else if (asked) whenSeen(tile, () => draw(thumb, asked));
  return element;
}

/** The channels of a chosen layer that are to be raised, with commas between them. */
function channelsField({ name, channels: known }, channels) {
  const input = h("input", { type: "text", spellcheck: false, placeholder: `0 to ${known - 1}`, "aria-label": `Channels of ${name}, with commas; none means all`, onchange: () => {
    const asked = input.value.split(",").map((number) => number.trim()).filter(Boolean);
    const wrong = asked.find((number) => !/^\d+$/.test(number) || Number(number) >= known);
    input.setCustomValidity(wrong === undefined ? "" : `${name} has channels 0 to ${known - 1}; ${wrong} is not one`);
    if (input.reportValidity()) channels.set(name, asked.map(Number).join());
  } });
  return h("label", { className: "channels" }, "Channels", input);
}

/** Ask for thumbnails one after the other: each may have to be dreamed first. */
function draw(thumb, asked) {
  const opening = opened;
  queue = queue.then(async () => {
    if (opening !== opened || !$("browser").open) return;
    const image = h("img", { src: api.thumbnail(asked), alt: "" });
    await image.decode().then(() => thumb.replaceChildren(image), () => thumb.replaceChildren("no picture"));
    if (opening === opened) count();
  });
}

const acts = new WeakMap();
const observer = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
    observer.unobserve(target);
    acts.get(target)();
  }
});

function whenSeen(element, act) {
  acts.set(element, act);
  observer.observe(element);
}

$("browser-filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const tile of $("browser-tiles").querySelectorAll(".layer")) tile.hidden = !tile.dataset.name.includes(wanted);
});
$("browser-close").addEventListener("click", () => $("browser").close());
