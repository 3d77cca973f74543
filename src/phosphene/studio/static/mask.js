// A mask painted on the photograph: white is where to dream. It is sent as a grey picture of the photograph's shape.

import { $, h } from "./dom.js";

const LONG_SIDE = 1024;

/** Let a person paint over the stage; resolves to a PNG Blob, or null when they give up. */
export function paint([height, width]) {
  const canvas = $("mask-canvas");
  const scale = LONG_SIDE / Math.max(height, width);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const mask = blackCanvas(canvas);
  const brush = { size: 15, paints: true };
  showVeil(canvas, mask);
  canvas.hidden = false;
  return new Promise((resolve) => {
    const done = (blob) => {
      canvas.hidden = true;
      canvas.onpointerdown = canvas.onpointermove = canvas.onpointerup = null;
      bar.remove();
      resolve(blob);
    };
    const bar = tools(brush, mask, () => showVeil(canvas, mask), done);
    $("stage").append(bar);
    bar.querySelector("input").focus();
    followPointer(canvas, mask, brush);
  });
}

function blackCanvas({ width, height }) {
  const mask = h("canvas", { width, height });
  const context = mask.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, width, height);
  return mask;
}

function tools(brush, mask, redraw, done) {
  const fill = (colour) => {
    const context = mask.getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, mask.width, mask.height);
    redraw();
  };
  const size = h("input", { type: "range", min: 2, max: 50, value: brush.size, oninput: (event) => (brush.size = Number(event.target.value)) });
  const erase = h("input", { type: "checkbox", onchange: (event) => (brush.paints = !event.target.checked) });
  return h("div", { className: "brush", role: "group", "aria-label": "Mask: paint where to dream" },
    h("label", {}, "Brush", size), h("label", {}, erase, "Erase"),
    h("button", { type: "button", className: "quiet", onclick: () => fill("white") }, "All"),
    h("button", { type: "button", className: "quiet", onclick: () => fill("black") }, "Nothing"),
    h("button", { type: "button", className: "quiet", onclick: () => done(null) }, "Cancel"),
    h("button", { type: "button", className: "plain", onclick: () => mask.toBlob(done) }, "Use mask"));
}

function followPointer(canvas, mask, brush) {
  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(mask, brush, last, last);
    showVeil(canvas, mask);
  };
  canvas.onpointermove = (event) => {
    if (!last) return;
    const next = place(event);
    stroke(mask, brush, last, next);
    last = next;
    showVeil(canvas, mask);
  };
  canvas.onpointerup = () => (last = null);
}

function stroke(mask, brush, from, to) {
  const context = mask.getContext("2d");
  context.strokeStyle = brush.paints ? "white" : "black";
  context.lineWidth = (brush.size / 100) * Math.max(mask.width, mask.height);
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
}

/** Darken what the mask leaves out. */
function showVeil(canvas, mask) {
  const context = canvas.getContext("2d");
  const pixels = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = 184 - (184 * pixels.data[i]) / 255;
    pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = 16;
  }
  context.putImageData(pixels, 0, 0);
}
