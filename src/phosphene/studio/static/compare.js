// One photograph, dreamed in several ways, side by side. A comparison is a folder of the studio: the page shows what is
// there of it, and the queue dreams the rest.

import * as api from "./api.js";
import * as controls from "./controls.js";
import { $, duration, h } from "./dom.js";
import { browseLayers } from "./layers.js";
import { showLooks } from "./looks.js";
import { ended } from "./watch.js";

const EVERY = 1000;

let ways = []; // { model, look } or { model, layer }
let shown = 0; // counts what was shown: who follows an earlier one ends

const nameOf = (way) => way.look ?? way.layer;
const same = (one, other) => one.model === other.model && one.look === other.look && one.layer === other.layer;
const address = (name) => `#compare/${encodeURIComponent(name)}`;

/**
 * Show a comparison by its name, or with none, what another can be made of. `page` gives the photograph, the settings
 * that all share, the catalogue, and `fail(error)`.
 */
export async function showCompare(name, page) {
  shown += 1;
  if (name) return follow(name, shown, page);
  const earlier = await api.comparisons();
  $("compare-view").replaceChildren(h("h2", {}, "Compare"), page.photograph ? picker(page) : noPhotograph(), listOf(earlier));
}

// --- what to compare

const noPhotograph = () => h("p", { className: "empty" }, "Choose a photograph first: ", h("a", { href: "#" }, "on the first page"), ". Then dream it here in several ways at once.");

function listOf(names) {
  if (!names.length) return "";
  return h("section", { className: "earlier" }, h("h3", {}, "Earlier comparisons"), h("ul", {}, ...names.map((name) => h("li", {}, h("a", { href: address(name) }, name)))));
}

function picker(page) {
  const looks = h("fieldset", { className: "looks", id: "compare-looks" }, h("legend", {}, "Looks to compare, shown on a sample"), h("div", { className: "strip" }));
  const chips = h("ul", { className: "chips", "aria-label": "To be compared" });
  const terms = { size: page.given.size ?? page.catalogue.compare.size, change: page.catalogue.compare.change.default };
  const go = h("button", { type: "button", className: "primary", "aria-describedby": "compare-lacks", onclick: () => begin(page, terms) }, "Compare");
  const lacks = h("span", { id: "compare-lacks" });
  const redraw = () => {
    chips.replaceChildren(...ways.map((way) => chip(way, () => toggle(way))));
    go.disabled = ways.length < 2;
    lacks.textContent = ["Choose two looks or layers at least", "Choose one more look or layer"][ways.length] ?? "";
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
    h("div", { className: "choose" }, h("label", {}, "Model ", model), layers), h("div", { className: "begin" }, lacks, go), looks, chips, fields(page.catalogue, terms));
}

/** The size and the change that all dreams are to have; help and ranges come from the catalogue. */
function fields({ compare, settings }, terms) {
  const size = controls.wordOrNumber((value) => (terms.size = value), compare.size);
  const change = controls.number((value) => (terms.change = value), compare.change);
  const field = (name, label, { element, set }, value, help) => {
    element.id = `compare-${name}`;
    set(value);
    const about = h("span", { className: "help", id: `compare-${name}-help` }, help);
    element.setAttribute("aria-describedby", about.id);
    return h("div", { className: "field" }, h("label", { for: element.id }, label), about, element);
  };
  return h("div", { className: "fields" }, field("change", "How strong", change, terms.change, compare.change.description), field("size", "Size", size, terms.size, settings.size.description));
}

function chip(way, remove) {
  return h("li", {}, h("button", { type: "button", className: "quiet", "aria-label": `Leave out ${nameOf(way)} of ${way.model}`, onclick: remove }, `${nameOf(way)} `, h("span", {}, way.model), " ×"));
}

async function begin(page, { size, change }) {
  const { layers, classes, terms, model, step_size, ...shared } = page.given;
  try {
    const task = await api.compare({ photograph: page.photograph.name, ways, settings: { ...shared, size }, change });
    location.hash = address(task.order.comparison);
  } catch (error) {
    page.fail(error);
  }
}

// --- side by side

async function follow(name, number, page) {
  let drawn;
  const look = async () => {
    try {
      const known = await api.comparison(name);
      if (number !== shown) return;
      drawn ??= draw(known, () => showCompare(name, page), page.fail);
      drawn(known);
      if (known.task && !ended(known.task)) setTimeout(look, EVERY);
    } catch (error) {
      if (number !== shown) return;
      if (!drawn) throw error;
      if (error.lost) setTimeout(look, 2 * EVERY);
      else page.fail(error);
    }
  };
  await look();
}

/** Draw a comparison, and return a function that draws it again as it is then. */
function draw({ name, photograph, notes, cells }, again, fail) {
  const status = h("span", { role: "status" });
  const meter = h("div", { className: "meter", role: "progressbar", "aria-label": "Comparison", "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", {}));
  const button = h("button", { type: "button", className: "plain" });
  const report = h("a", { className: "quiet button", href: api.reportOf(name), target: "_blank", rel: "noopener" }, "Report");
  const grid = h("div", { className: "grid" });
  const across = h("label", { className: "across" }, "Photograph",
    h("input", { type: "range", "aria-label": "How much of each dream is shown, in percent", min: 0, max: 100, step: 0.5, value: 100, oninput: (event) => grid.style.setProperty("--at", `${100 - event.target.value}%`) }), "Dream");
  const figures = cells.map((cell) => figure(cell, photograph));
  grid.append(...figures.map(({ element }) => element));
  $("compare-view").replaceChildren(h("h2", {}, name), h("div", { className: "state" }, status, button, report, h("a", { className: "quiet button", href: "#compare" }, "Another comparison")),
    meter, ...notes.map((note) => h("p", { className: "note" }, note)), across, grid);
  return (now) => {
    const running = Boolean(now.task) && !ended(now.task);
    const left = now.cells.some((cell) => !cell.picture);
    const act = running ? () => api.stop("dreams", now.task.id) : () => api.goOn(name);
    status.textContent = statusOf(now);
    meter.hidden = !running;
    meter.setAttribute("aria-valuenow", Math.round(100 * (now.task?.progress ?? 0)));
    meter.firstElementChild.style.width = `${100 * (now.task?.progress ?? 0)}%`;
    button.textContent = running ? "Stop" : "Go on";
    button.hidden = !left;
    button.disabled = Boolean(running && now.task.stopping);
    button.onclick = () => act().then(again).catch(fail);
    report.hidden = running || !now.report;
    figures.forEach(({ update }, place) => update(now.cells[place], running ? now.task : null));
  };
}

function figure({ label }, photograph) {
  const before = h("img", { alt: "" });
  const after = h("img", { className: "after", alt: `The dream ${label}`, hidden: true });
  const pair = h("div", { className: "pair" }, before, after);
  const title = h("a", {}, label);
  const status = h("span", {});
  before.onload = () => pair.style.setProperty("--ratio", before.naturalWidth / before.naturalHeight);
  if (photograph) before.src = api.viewOfPhotograph(photograph);
  const update = (cell, task) => {
    status.textContent = cell.failure ?? (cell.picture ? `drive ${cell.drive.toPrecision(2)}` : task?.cells?.includes(cell.name) ? "dreaming" : task ? "waiting" : "not dreamed yet");
    status.className = cell.failure ? "wrong" : "";
    pair.classList.toggle("waits", !cell.picture);
    if (!cell.picture || !after.hidden) return;
    after.src = api.viewOfPicture(cell.picture);
    after.hidden = false;
    title.href = `#picture/${encodeURIComponent(cell.picture)}`;
  };
  return { element: h("figure", {}, pair, h("p", {}, title, status)), update };
}

function statusOf({ task, cells, change }) {
  const done = cells.filter((cell) => cell.picture).length;
  if (task?.state === "failed") return `Failed: ${task.error}`;
  if (task?.state === "waiting") return "Waiting in the queue";
  if (task?.state === "dreaming") {
    if (task.stopping) return "Stopping";
    if (task.left === undefined) return "Beginning";
    return done < cells.length ? `${done} of ${cells.length} dreamed, about ${duration(task.left)} left` : "Measuring, and writing the report";
  }
  return done < cells.length ? `${done} of ${cells.length} dreamed` : `${done} dreams, each at a change of ${change}`;
}
