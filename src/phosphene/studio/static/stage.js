// The picture: the photograph, the dream over it, and the seam between them that a person drags.

import { $ } from "./dom.js";

const pair = $("pair");

/** Put a photograph on the stage; `size` is its height and width. */
export function showPhotograph(url, [height, width], name) {
  $("invitation").hidden = true;
  pair.hidden = false;
  pair.style.setProperty("--ratio", width / height);
  $("before").src = url;
  $("before").alt = `The photograph ${name}`;
  clearDream();
}

/** Take the dream away, so that the photograph is seen. */
export function clearDream() {
  $("after").hidden = $("seam").hidden = $("badge").hidden = true;
  $("after").removeAttribute("src");
  wanted = null;
  cleared += 1;
}

let wanted = null;
let loading = false;
let cleared = 0;

/** Show a picture over the photograph as soon as it is here; of several in a row, the latest. */
export async function showDream(url, alt, badge = "") {
  wanted = { url, alt, badge };
  if (loading) return;
  loading = true;
  while (wanted) {
    const next = wanted;
    wanted = null;
    await swapIn(next);
  }
  loading = false;
}

async function swapIn(next) {
  const then = cleared;
  const image = new Image();
  image.src = next.url;
  try {
    await image.decode();
  } catch {
    return; // the step's picture is gone; a later one comes
  }
  if (then !== cleared) return;
  const after = $("after");
  after.src = next.url;
  after.alt = next.alt;
  after.hidden = $("seam").hidden = false;
  $("badge").textContent = next.badge;
  $("badge").hidden = !next.badge;
}

/** Draw the seam at a share, in percent from the left. */
export function seamAt(percent) {
  pair.style.setProperty("--at", `${percent}%`);
  $("slider").value = percent;
}

$("slider").addEventListener("input", (event) => seamAt(event.target.value));
