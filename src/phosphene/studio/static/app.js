// The page: which photograph, which settings, which dream; and what the address says.

import * as api from "./api.js";
import { pixels, setRunning, showFinished, statusOf, toggleCommand } from "./caption.js";
import { showCompare } from "./compare.js";
import { drawCurve } from "./curve.js";
import { $ } from "./dom.js";
import { buildForm } from "./form.js";
import { showGallery } from "./gallery.js";
import { browseLayers } from "./layers.js";
import { markLook, showLooks } from "./looks.js";
import { paint } from "./mask.js";
import { alert, note, tell, trying } from "./notice.js";
import { watchQueue } from "./queue.js";
import { clearDream, playFilms, seamAt, showDream, showPhotograph } from "./stage.js";
import { ended, watch } from "./watch.js";
import { buildZoom, toggleZoom } from "./zoom.js";

const QUIET_BEFORE_PREVIEW = 350;

const state = {
  catalogue: null,
  photograph: null, // { name, size: [height, width] }
  look: null,
  given: {}, // the settings that the person changed, over the look's
  shown: null, // the whole recipe, as the studio read it
  dream: null, // the id of the dream on the stage
};
let fill = () => {};
let showZoom = () => {};
let unwatch = () => {};

/** A file's name without its checksum and ending. */
const title = (name) => name.replace("sample:", "").replace(/(-[0-9a-f]{12})?\.\w+$/, "");
const order = () => ({ photograph: state.photograph.name, look: state.look, settings: state.given });

// --- the photograph

async function takePhotograph(photograph) {
  leaveDream();
  state.photograph = photograph;
  showPhotograph(api.viewOfPhotograph(photograph.name), photograph.size, title(photograph.name));
  $("caption").hidden = $("dock").hidden = false;
  $("show-zoom").hidden = isFilm(photograph.name);
  $("title").textContent = title(photograph.name);
  $("status").textContent = pixels(photograph.size);
  showFinished(null);
}

async function takeFile(file) {
  alert(null);
  if (file.size > state.catalogue.limits.bytes) throw new Error(`${file.name} is larger than ${state.catalogue.limits.bytes / 2 ** 20} MB: give a smaller file`);
  tell(`Reading ${file.name}`, "note");
  const kept = await api.keep(file);
  alert(null);
  leaveAddress();
  if (kept.restored) return restore(kept, kept, api.viewOfPhotograph(kept.name));
  await takePhotograph(kept);
  await refresh();
  return note(kept.notes);
}

async function takeSample(name) {
  alert(null);
  leaveAddress();
  await takePhotograph({ name, size: await sizeOf(api.viewOfPhotograph(name)) });
  return refresh();
}

async function sizeOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return [image.naturalHeight, image.naturalWidth];
}

/** Show a dreamed picture with its recipe's settings; its photograph is what is dreamed next, if it is here. */
async function restore({ restored, curve }, picture, url) {
  const photograph = restored.photograph ? { name: restored.photograph, size: restored.size } : picture;
  await takePhotograph(photograph);
  state.look = restored.look;
  state.given = restored.given;
  await refresh({ preview: false });
  await showDream(url, `The dream ${picture.name}`);
  seamAt(0);
  $("title").textContent = title(picture.name);
  $("status").textContent = [pixels(restored.size), restored.unfinished].filter(Boolean).join(", ");
  showFinished(null, restored.command);
  if (curve) drawCurve($("curve"), curve.scores, curve.starts);
  note(restored.notes);
}

// --- settings

function change(name, value) {
  if (name === "drive") return change("step_size", Number((value / state.shown.recipe.steps).toPrecision(6)));
  if (name === "model") {
    state.look = null;
    state.given = { ...state.given, model: value };
    delete state.given.layers;
  } else {
    state.given = { ...state.given, [name]: value };
    if (value === null) delete state.given[name];
  }
  return refresh();
}

function chooseLook(name) {
  state.look = name;
  for (const setting of ["layers", "classes", "terms"]) delete state.given[setting];
  return refresh();
}

/** Let the studio read the settings; show the recipe that it makes of them, or what is wrong. */
const refresh = trying(async ({ preview = true } = {}) => {
  const shown = await api.recipe(state.photograph ? order() : { ...order_without_photograph() });
  alert(null);
  const model = state.shown?.recipe.model;
  state.shown = shown;
  fill(shown);
  if (model !== shown.recipe.model) await showModel(shown.recipe.model);
  markLook($("looks"), shown.recipe.layers.length || shown.recipe.classes.length || shown.recipe.terms.length ? lookOf(shown) : null);
  if (preview) schedulePreview();
});

/** Whether a file is a film, by the endings that the studio names. */
const isFilm = (name) => state.catalogue.films.some((ending) => name.toLowerCase().endsWith(ending));
const order_without_photograph = () => ({ photograph: state.catalogue.samples[0].name, look: state.look, settings: state.given });

/** The look that the recipe is: the one chosen, unless layers of one's own took its place. */
function lookOf(shown) {
  if (shown.given.layers || shown.given.classes || shown.given.terms) return null;
  return shown.look ?? state.look ?? state.catalogue.default_look;
}

async function showModel(name) {
  const known = state.catalogue.models.find((model) => model.name === name);
  const model = known ?? (await api.layers(name)).model;
  showLooks($("looks"), model, { onchange: chooseLook });
  $("looks").hidden = model.looks.length === 0;
}

const TERM = /^([^\s:@]+?)(?:\[([\d,]+)\])?([:@].*)?$/; // NAME[CHANNELS]@ROW,COLUMN:WEIGHT

function browse() {
  const { model, weights, layers } = state.shown.recipe;
  let terms = layers;
  const find = (name) => terms.find((term) => term.match(TERM)[1] === name);
  const put = (changed) => change("layers", (terms = changed));
  const toggle = (name) => put(find(name) ? terms.filter((term) => term.match(TERM)[1] !== name) : [...terms, name]);
  const channels = {
    get: (name) => find(name)?.match(TERM)[2] ?? "",
    set: (name, asked) => put(terms.map((term) => (term === find(name) ? term.replace(TERM, `$1${asked && `[${asked}]`}$3`) : term))),
  };
  return trying(browseLayers)(model, weights, (name) => Boolean(find(name)), toggle, channels);
}

const isNarrow = () => matchMedia("(max-width: 60rem)").matches;
const upload = trying(async (file) => (await api.keep(file)).name);

const paintMask = trying(async () => {
  if (!state.photograph) throw new Error("Choose a photograph first: the mask is painted on it.");
  stopPreview();
  clearDream();
  if (isNarrow()) toggleSettings(false);
  const blob = await paint(state.photograph.size);
  return blob && (await api.keep(new File([blob], "mask.png"))).name;
});

// --- a quick preview while settings change

let previewTimer;
let preview = null; // { id, unwatch }, or null
let previews = 0;

function schedulePreview() {
  clearTimeout(previewTimer);
  if (!state.photograph || state.dream) return;
  previewTimer = setTimeout(trying(startPreview), QUIET_BEFORE_PREVIEW);
}

async function startPreview() {
  stopPreview();
  const number = ++previews;
  const task = await api.start("previews", order());
  if (number !== previews) return void api.stop("previews", task.id);
  preview = { id: task.id };
  preview.unwatch = watch("previews", task.id, (report) => {
    if (report.state === "failed") alert(report.error);
    else if (report.steps_done) showDream(api.frame("previews", report.id, report.steps_done), "A quick preview of the dream", "Preview at 256 px");
  }, () => {});
  showFinished(null);
  $("curve").hidden = true;
  $("title").textContent = title(state.photograph.name);
  $("status").textContent = pixels(state.photograph.size);
}

function stopPreview() {
  clearTimeout(previewTimer);
  previews += 1;
  if (!preview) return;
  preview.unwatch();
  api.stop("previews", preview.id).catch(() => {});
  preview = null;
}

// --- the dream

const dream = trying(async (zoom = null) => {
  alert(null);
  stopPreview();
  $("go").disabled = $("go-zoom").disabled = true;
  try {
    const task = await api.start("dreams", { ...order(), zoom });
    location.hash = `dream/${task.id}`;
  } finally {
    $("go").disabled = $("go-zoom").disabled = false;
  }
});

async function follow(id) {
  leaveDream();
  state.dream = id;
  const first = await api.report("dreams", id, 0);
  const { photograph, look, settings, zoom } = first.order;
  state.photograph = { name: photograph, size: first.size ?? (await sizeOf(api.viewOfPhotograph(photograph))) };
  const over = ended(first);
  await takePhotograph(state.photograph);
  state.dream = id;
  state.look = look;
  state.given = settings;
  if (zoom) showZoom(zoom);
  await refresh({ preview: false });
  if (!over) seamAt(0);
  unwatch = watch("dreams", id, show, (error) => {
    if (error.lost) $("status").textContent = "The studio does not answer; trying again";
    else alert(error.message);
  });
}

function leaveDream() {
  unwatch();
  unwatch = () => {};
  stopPreview();
  state.dream = null;
  setRunning(false);
  toggleZoom(false);
  $("curve").hidden = true;
  clearDream();
}

function show(report, scores) {
  setRunning(!ended(report), report);
  $("title").textContent = report.title;
  $("status").textContent = statusOf(report);
  if (report.order.zoom || isFilm(report.order.photograph ?? "")) $("curve").hidden = true;
  else drawCurve($("curve"), scores, report.starts);
  if (report.state === "dreaming" && report.steps_done) showDream(api.frame("dreams", report.id, report.steps_done), "The dream as it grows");
  if (ended(report)) finish(report);
}

function finish(report) {
  state.dream = null;
  if (report.state === "failed") return alert(report.error);
  if (!report.picture) {
    note(report.notes);
    return clearDream();
  }
  if (report.order.zoom) playFilms(null, api.fileOfPicture(report.picture));
  else if (isFilm(report.picture)) playFilms(api.fileOfPhotograph(report.order.photograph), api.fileOfPicture(report.picture));
  else showDream(api.viewOfPicture(report.picture), `The dream ${report.picture}`);
  note(report.notes);
  return showFinished(report.picture, report.command);
}

/** Open or close the settings. Where they cover the page, what it says is said in them. */
function toggleSettings(open) {
  $("settings").hidden = !open;
  $("show-settings").setAttribute("aria-expanded", open);
  if (open && isNarrow()) $("settings").firstElementChild.append($("alert"));
  else document.querySelector("main").prepend($("alert"));
}

// --- the address: what is shown, so that a reload shows it again

const views = { gallery: () => showGallery(), compare: (name) => showCompare(decodeURIComponent(name), comparing()) };

const comparing = () => ({ ...state, weights: state.shown.recipe.weights, fail: (error) => alert(error.message) });

let onStage = ""; // the address whose dream or picture is on the stage

function leaveAddress() {
  history.pushState(null, "", "#");
  onStage = "";
  showAddress("dream");
}

function showAddress(view) {
  document.body.dataset.view = view;
  for (const name of ["dream", ...Object.keys(views)]) $(`${name}-view`).hidden = name !== view;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "dream") document.querySelector("[data-nav=dream]").href = location.hash || "#";
  else toggleSettings(false);
}

const route = trying(async () => {
  const [page, rest = ""] = location.hash.slice(1).split(/\/(.*)/);
  const view = page in views ? page : "dream";
  alert(null);
  showAddress(view);
  if (page in views) await views[page](rest);
  else if (location.hash === onStage) return;
  else onStage = location.hash;
  if (page === "dream" && rest) await follow(rest);
  if (page === "picture") await openPicture(decodeURIComponent(rest));
});

async function openPicture(name) {
  const told = await api.picture(name);
  const url = api.viewOfPicture(name);
  const size = await sizeOf(url);
  if (isFilm(name)) {
    showPhotograph(url, size, name);
    playFilms(null, api.fileOfPicture(name));
  } else if (told.restored) await restore(told, { name, size }, url);
  else {
    alert(`${name} carries no recipe, so there are no settings to restore.`);
    showPhotograph(url, size, name);
  }
  showFinished(name, told.restored?.command);
}

// --- listening

function listen() {
  $("choose").onclick = $("change").onclick = () => $("file").click();
  $("file").onchange = () => { if ($("file").files[0]) takeIt($("file").files[0]); $("file").value = ""; };
  $("go").onclick = () => dream();
  $("show-zoom").onclick = () => toggleZoom($("zoom").hidden);
  $("stop").onclick = trying(() => api.stop("dreams", state.dream));
  $("show-settings").onclick = () => { toggleSettings($("settings").hidden); if (!$("settings").hidden) $("close-settings").focus(); };
  $("close-settings").onclick = () => { toggleSettings(false); $("show-settings").focus(); };
  $("show-command").onclick = () => toggleCommand($("command").hidden);
  $("copy").onclick = trying(() => navigator.clipboard.writeText($("command-text").textContent));
  $("reset").onclick = () => { state.given = {}; state.look = null; refresh(); };
  $("alert").querySelector("button").onclick = () => alert(null);
  addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("stage").classList.remove("dropping");
    if (event.dataTransfer.files[0]) takeIt(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => { const file = event.clipboardData.files[0]; if (file) takeIt(file); });
  addEventListener("hashchange", route);
}

const takeIt = trying(takeFile);

function showSamples() {
  $("samples").replaceChildren(...state.catalogue.samples.map(({ name, about }) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.title = about;
    button.onclick = trying(() => takeSample(name));
    const image = document.createElement("img");
    image.src = api.viewOfPhotograph(name, 480);
    image.alt = `Sample ${title(name)}: ${about.split(";")[0]}`;
    button.append(image);
    item.append(button);
    return item;
  }));
}

await trying(async () => {
  state.catalogue = await api.catalogue();
  fill = buildForm($("form"), state.catalogue, change, { browse, paint: paintMask, upload });
  showZoom = buildZoom(state.catalogue, dream);
  listen();
  showSamples();
  watchQueue();
  await refresh();
  await route();
})();
