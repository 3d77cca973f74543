// The zoom into a photograph: how it is to go, and the place in the picture that it goes to.

import { $, h } from "./dom.js";
import { field } from "./form.js";

/**
 * Build the fields of a zoom from the catalogue; `begin(zoom)` hears that one is asked for. Returns `show(zoom)`, which
 * puts another one into the fields.
 */
export function buildZoom(catalogue, begin) {
  const schemas = Object.entries(catalogue.zoom);
  const fields = Object.fromEntries(schemas.map(([name, schema]) => [name, field(name, schema, (value) => show({ [name]: value }), {}, catalogue)]));
  let zoom = {};
  function show(other) {
    zoom = { ...zoom, ...other };
    for (const [name, { set }] of Object.entries(fields)) set(zoom[name]);
    const [row, column] = zoom.towards.split(",").map(Number);
    $("towards").style.setProperty("--row", row);
    $("towards").style.setProperty("--column", column);
  }
  show(Object.fromEntries(schemas.map(([name, schema]) => [name, schema.default])));
  $("zoom").append(...Object.values(fields).map(({ row }) => row));
  $("go-zoom").onclick = () => begin(zoom);
  $("towards").onclick = ({ clientX, clientY }) => {
    const { left, top, width, height } = $("towards").getBoundingClientRect();
    show({ towards: [(clientY - top) / height, (clientX - left) / width].map((share) => Math.min(1, Math.max(0, share)).toFixed(2)).join() });
  };
  return show;
}

/** Open or close the fields, and the picture for a place to be pointed at; meanwhile it is the zoom that is dreamed. */
export function toggleZoom(open) {
  $("zoom").hidden = $("towards").hidden = $("go-zoom").hidden = !open;
  $("show-zoom").setAttribute("aria-expanded", open);
}
