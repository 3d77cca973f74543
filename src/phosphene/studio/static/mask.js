// A mask painted on the photograph: white is where to dream. It is sent as a grey picture of the photograph's shape.

import { $, h } from "./dom.js";

const LONG_SIDE = 1024;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HINT = "Arrow keys move the brush; Space lowers it, and lifts it again";

/** Let a person paint over the stage, by pointer or by keys; resolves to a PNG Blob, or null when they give up. */
export function paint([height, width]) {
  const canvas = $("mask-canvas");
  const scale = LONG_SIDE / Math.max(height, width);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const mask = blackCanvas(canvas);
  const brush = { size: 15, paints: true, down: false, at: [canvas.width / 2, canvas.height / 2] };
  const redraw = () => {
    showVeil(canvas, mask);
    if (canvas.matches(":focus-visible")) showBrush(canvas, brush);
  };
  const before = document.activeElement;
  canvas.hidden = false;
  return new Promise((resolve) => {
    const bar = tools(brush, mask, redraw, (blob) => {
      canvas.hidden = true;
      bar.remove();
      before.focus();
      resolve(blob);
    });
    $("stage").append(bar);
    followPointer(canvas, mask, brush, redraw);
    followKeys(canvas, mask, brush, redraw, bar.querySelector("[role=status]"));
    canvas.focus();
    redraw();
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
    h("span", { className: "hint" }, HINT), h("span", { className: "unseen", role: "status" }),
    h("label", {}, "Brush", size), h("label", {}, erase, "Erase"),
    h("button", { type: "button", className: "quiet", onclick: () => fill("white") }, "All"),
    h("button", { type: "button", className: "quiet", onclick: () => fill("black") }, "Nothing"),
    h("button", { type: "button", className: "quiet", onclick: () => done(null) }, "Cancel"),
    h("button", { type: "button", className: "plain", onclick: () => mask.toBlob(done) }, "Use mask"));
}

function followPointer(canvas, mask, brush, redraw) {
  let drawing = false;
  const strokeTo = (event, from) => {
    const box = canvas.getBoundingClientRect();
    const next = [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
    stroke(mask, brush, from ?? next, next);
    redraw();
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    strokeTo(event);
  };
  canvas.onpointermove = (event) => drawing && strokeTo(event, brush.at);
  canvas.onpointerup = () => (drawing = false);
}

function followKeys(canvas, mask, brush, redraw, status) {
  canvas.onkeydown = (event) => {
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (!move) brush.down = !brush.down;
    const next = move ? brush.at.map((place, axis) => within(place + (move[axis] * thickness(mask, brush)) / 2, [canvas.width, canvas.height][axis])) : brush.at;
    if (brush.down) stroke(mask, brush, brush.at, next);
    brush.at = next;
    redraw();
    const [across, down] = [next[0] / canvas.width, next[1] / canvas.height].map((share) => Math.round(100 * share));
    status.textContent = `Brush ${brush.down ? "down" : "lifted"}, ${across} % from the left, ${down} % from the top`;
  };
  canvas.onfocus = canvas.onblur = redraw;
}

const within = (place, side) => Math.min(side, Math.max(0, place));
const thickness = (mask, brush) => (brush.size / 100) * Math.max(mask.width, mask.height);

function stroke(mask, brush, from, to) {
  const context = mask.getContext("2d");
  context.strokeStyle = brush.paints ? "white" : "black";
  context.lineWidth = thickness(mask, brush);
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  brush.at = to;
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

/** Draw where the brush is: a ring, thick while it is down, that is seen on light and dark. */
function showBrush(canvas, brush) {
  const context = canvas.getContext("2d");
  const width = brush.down ? 10 : 4;
  for (const [colour, line] of [["#141414", width + 4], ["#ffffff", width]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.beginPath();
    context.arc(...brush.at, thickness(canvas, brush) / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}
