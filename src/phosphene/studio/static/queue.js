// Who dreams and who waits, in the page's head.

import * as api from "./api.js";
import { $, duration, h } from "./dom.js";

const EVERY = 2000;

async function look() {
  try {
    show(await api.waiting());
  } catch { /* the dream's own watch says when the studio is gone */ }
  setTimeout(look, document.hidden ? 5 * EVERY : EVERY);
}

function show(tasks) {
  const waiting = tasks.filter((task) => task.state === "waiting").length;
  const dreaming = tasks.length - waiting;
  $("queue").hidden = tasks.length === 0;
  const said = `${dreaming} dreaming${waiting ? `, ${waiting} waiting` : ""}`;
  $("queue-summary").replaceChildren(h("span", { className: "said" }, said), h("span", { className: "count", "aria-hidden": "true" }, tasks.length));
  $("queue-list").replaceChildren(...tasks.map((task, place) => h("li", {}, h("a", { href: task.order.comparison ? `#compare/${encodeURIComponent(task.order.comparison)}` : `#dream/${task.id}` }, task.title, h("span", {}, place_of(task, place))))));
}

function place_of(task, place) {
  if (task.state === "waiting") return place === 1 ? "next" : `${place} ahead`;
  return task.left === null || task.left === undefined ? "beginning" : `${duration(task.left)} left`;
}

/** Begin to look who is in the queue, and go on. */
export const watchQueue = look;
