// The score as a line: one point a step, a fine rule where an octave begins.

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

/** Draw scores into a figure. */
export function drawCurve(figure, scores, starts) {
  figure.hidden = scores.length < 2;
  if (figure.hidden) return;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Score after ${scores.length} steps: ${scores.at(-1).toPrecision(3)}`);
  const low = Math.min(...scores);
  const high = Math.max(...scores);
  const across = (step) => (100 * step) / (scores.length - 1);
  const up = (score) => 100 - (100 * (score - low)) / (high - low || 1);
  for (const start of starts.slice(1)) svg.append(shape("line", { x1: across(start), x2: across(start), y1: 0, y2: 100 }));
  svg.append(shape("polyline", { points: scores.map((score, step) => `${across(step)},${up(score)}`).join(" ") }));
  figure.replaceChildren(h("figcaption", {}, "Score"), svg);
}

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
