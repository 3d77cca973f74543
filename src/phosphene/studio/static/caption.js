// The line under the picture: how a dream stands, and what can be done with it.

import * as api from "./api.js";
import { $, duration } from "./dom.js";
import { ended } from "./watch.js";

/** Say a size, width first, as people do. */
export const pixels = ([height, width]) => `${width} × ${height}`;

/** Say how a dream stands. */
export function statusOf(report) {
  if (report.state === "waiting") return report.ahead === 1 ? "waiting, one ahead" : `waiting, ${report.ahead} ahead`;
  if (report.state === "failed") return "failed";
  if (ended(report)) return [report.size && pixels(report.size), report.state === "stopped" ? (report.picture ? "stopped; this is what there is" : "stopped before it began") : null].filter(Boolean).join(", ");
  if (report.frame) return `frame ${report.frame} of ${report.frames}${report.stopping ? ", stopping" : report.left === null ? "" : `, ${duration(report.left)} left`}`;
  if (!report.steps_done) return "reading the photograph and the network";
  return `octave ${report.octave} of ${report.octaves}, step ${report.step} of ${report.steps}${report.stopping ? ", stopping" : `, ${duration(report.left)} left`}`;
}

/** Show the meter and Stop while a dream runs, and Dream otherwise. */
export function setRunning(running, report = {}) {
  $("meter").hidden = !running;
  $("meter").setAttribute("aria-valuenow", Math.round(100 * (report.progress ?? 0)));
  $("meter").firstElementChild.style.width = `${100 * (report.progress ?? 0)}%`;
  $("stop").hidden = !running;
  $("stop").disabled = Boolean(report.stopping);
  $("go").hidden = running;
  $("change").hidden = running;
}

/** Offer a finished picture and the command that makes it again; nothing takes them away. */
export function showFinished(picture, command = null) {
  $("download").hidden = !picture;
  if (picture) $("download").href = api.fileOfPicture(picture);
  $("show-command").hidden = !command;
  $("command-text").textContent = command ?? "";
  if (!command) toggleCommand(false);
}

/** Show or hide the command. */
export function toggleCommand(open) {
  $("command").hidden = !open;
  $("show-command").setAttribute("aria-expanded", open);
}
