// What the page says, above the picture: what went wrong, and what there is to know.

import { $ } from "./dom.js";

// A sentence that begins with a name, which keeps its spelling: resnet50, blocks.4.2, a file, steps = 0.
const NAMED = /^(\w*[^a-z\s,;:']|\w+ = )/;

/** Say a sentence, of a kind: wrong or note; nothing takes it away. */
export function tell(sentence, kind) {
  $("alert").hidden = !sentence;
  $("alert").className = `alert ${kind}`;
  $("alert").querySelector("span").textContent = sentence ?? "";
  $("alert").querySelector("span").classList.toggle("named", NAMED.test(sentence));
}

/** Say what went wrong, or with nothing that all is well again. */
export const alert = (sentence) => tell(sentence, "wrong");

/** Say what there is to know, if anything. */
export const note = (sentences) => sentences.length && tell(`${sentences.join(". ")}.`, "note");

/** Run something that may fail, and say so if it does. */
export const trying = (act) => async (...given) => {
  try {
    return await act(...given);
  } catch (error) {
    alert(error.message);
    return null;
  }
};
