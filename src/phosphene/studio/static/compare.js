// One photograph, dreamed in several ways, side by side. Each way is a dream in the queue like any other.

import * as api from "./api.js";
import { $, duration, h } from "./dom.js";
import { browseLayers } from "./layers.js";
import { showLooks } from "./looks.js";
import { ended, watch } from "./watch.js";

let unwatch = [];
let ways = []; // { model, look } or { model, layer }

const nameOf = (way) => way.look ?? way.layer;
const same = (one, other) => one.model === other.model && one.look === other.look && one.layer === other.layer;

/**
 * Show the comparison of the dreams `ids` (comma-separated, or empty), and what another can be made of. `page` gives
 * the photograph, the settings that all share, the catalogue, and `fail(error)`.
 */
export function showCompare(ids, page) {
  for (const stop of unwatch) stop();
  unwatch = [];
  const grid = h("div", { className: "grid" });
  const across = h("label", { className: "across", hidden: !ids }, "Photograph",
    h("input", { type: "range", "aria-label": "How much of each dream is shown, in percent", min: 0, max: 100, step: 0.5, value: 100, oninput: (event) => grid.style.setProperty("--at", `${100 - event.target.value}%`) }), "Dream");
  $("compare-view").replaceChildren(h("h2", {}, "Compare"), page.photograph || !ids ? picker(page) : "", across, grid);
  for (const id of ids ? ids.split(",") : []) grid.append(cell(id));
}

// --- what to compare

function picker(page) {
  if (!page.photograph) return h("p", { className: "empty" }, "Choose a photograph first: ", h("a", { href: "#" }, "on the first page"), ". Then dream it here in several ways at once.");
  const looks = h("fieldset", { className: "looks", id: "compare-looks" }, h("legend", { className: "unseen" }, "Looks to compare"));
  const chips = h("ul", { className: "chips", "aria-label": "To be compared" });
  const go = h("button", { type: "button", className: "primary", onclick: () => begin(page) }, "Compare");
  const redraw = () => {
    chips.replaceChildren(...ways.map((way) => chip(way, () => toggle(way))));
    go.disabled = ways.length < 2;
  };
  const toggle = (way) => {
    const there = ways.some((other) => same(way, other));
    ways = there ? ways.filter((other) => !same(way, other)) : [...ways, way];
    for (const input of looks.querySelectorAll("input")) input.checked = ways.some((other) => same(other, { model: model.value, look: input.value }));
    redraw();
  };
  const known = page.catalogue.models;
  const model = h("select", { onchange: () => show() }, ...known.map(({ name }) => h("option", { value: name }, name)));
  const show = () => showLooks(looks, known.find(({ name }) => name === model.value), {
    kind: "checkbox", chosen: ways.filter((way) => way.model === model.value && way.look).map((way) => way.look),
    onchange: (look) => toggle({ model: model.value, look }),
  });
  const layers = h("button", { type: "button", className: "plain", onclick: () => browseLayers(model.value, page.weights, (layer) => ways.some((way) => same(way, { model: model.value, layer })), (layer) => toggle({ model: model.value, layer })).catch(page.fail) }, "Browse layers");
  show();
  redraw();
  return h("div", { className: "pick" },
    h("img", { src: api.viewOfPhotograph(page.photograph.name, 480), alt: "The photograph to dream" }),
    h("div", { className: "choose" }, h("label", {}, "Model ", model), layers), go, looks, chips);
}

function chip(way, remove) {
  return h("li", {}, h("button", { type: "button", className: "quiet", "aria-label": `Leave out ${nameOf(way)} of ${way.model}`, onclick: remove }, `${nameOf(way)} `, h("span", {}, way.model), " ×"));
}

async function begin(page) {
  const { layers, classes, model, ...shared } = page.given;
  try {
    const tasks = [];
    for (const way of ways) {
      const settings = { ...shared, model: way.model, ...(way.layer ? { layers: [way.layer] } : {}) };
      tasks.push(await api.start("dreams", { photograph: page.photograph.name, look: way.look ?? null, settings }));
    }
    location.hash = `compare/${tasks.map((task) => task.id).join(",")}`;
  } catch (error) {
    page.fail(error);
  }
}

// --- side by side

function cell(id) {
  const pair = h("div", { className: "pair" });
  const before = h("img", { alt: "" });
  const after = h("img", { className: "after", alt: "", hidden: true });
  const title = h("a", { href: `#dream/${id}` }, "…");
  const status = h("span", {});
  pair.append(before, after);
  let loading = false;
  const show = async (url, alt) => {
    if (loading) return;
    loading = true;
    const image = new Image();
    image.src = url;
    await image.decode().then(() => Object.assign(after, { src: url, alt, hidden: false }), () => {});
    loading = false;
  };
  unwatch.push(watch("dreams", id, async (report) => {
    if (!before.src) before.src = api.viewOfPhotograph(report.photograph);
    if (report.size) pair.style.setProperty("--ratio", report.size[1] / report.size[0]);
    title.textContent = report.title;
    status.textContent = statusOf(report);
    status.className = report.state === "failed" ? "wrong" : "";
    if (report.picture) {
      loading = false;
      await show(api.viewOfPicture(report.picture), `The dream ${report.picture}`);
      title.href = `#picture/${encodeURIComponent(report.picture)}`;
    } else if (report.steps_done && !ended(report)) await show(api.frame("dreams", id, report.steps_done), "The dream as it grows");
  }, (error) => { status.textContent = error.message; status.className = "wrong"; }));
  return h("figure", {}, pair, h("p", {}, title, status));
}

function statusOf(report) {
  if (report.state === "failed") return report.error;
  if (report.state === "waiting") return "waiting";
  if (ended(report)) return report.state === "stopped" ? "stopped" : `${report.size[1]} × ${report.size[0]}`;
  return report.steps_done ? `${duration(report.left)} left` : "beginning";
}
