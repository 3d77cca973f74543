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
  clearFilms();
  $("after").removeAttribute("src");
  wanted = null;
  cleared += 1;
}

/** Play a dream beside the film that it is of, in step. */
export function playFilms(before, after) {
  pair.hidden = $("invitation").hidden = true;
  $("films").hidden = false;
  $("film-before").hidden = !before;
  if (before) $("film-before").src = before;
  $("film-after").src = after;
}

function clearFilms() {
  if ($("films").hidden) return;
  $("films").hidden = true;
  pair.hidden = false;
  for (const film of ["film-before", "film-after"]) $(film).removeAttribute("src");
}

const [original, dreamed] = [$("film-before"), $("film-after")];
original.onerror = () => { original.hidden = true; }; // of a kind that this browser cannot play
dreamed.onplay = () => original.play().catch(() => {});
dreamed.onpause = () => original.pause();
dreamed.onseeked = () => { original.currentTime = dreamed.currentTime; };

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
