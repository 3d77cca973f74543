// Following a dream. The page asks how it stands; a reload, a closed laptop or a lost connection needs nothing more.

import * as api from "./api.js";

const DREAMING = 300;
const WAITING = 1000;
const LOST = 2000;

/** Whether a dream has come to its end, whichever. */
export const ended = (report) => !["waiting", "dreaming"].includes(report.state);

/**
 * Follow a task until it ends or the returned function is called. `hear(report, scores)` gets all scores so far;
 * `fail(error)` is called once if the studio does not know the task, and after each time that it does not answer.
 */
export function watch(queue, id, hear, fail) {
  let scores = [];
  let timer;
  let over = false;

  async function look() {
    let pause = LOST;
    try {
      const report = await api.report(queue, id, scores.length);
      if (over) return;
      scores = scores.concat(report.scores);
      hear(report, scores);
      if (ended(report)) return;
      pause = report.state === "dreaming" ? DREAMING : WAITING;
    } catch (error) {
      if (over) return;
      fail(error);
      if (!error.lost) return;
    }
    timer = setTimeout(look, pause);
  }

  look();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
