"""Who waits, who dreams, and what became of it. One queue is one thread that works through its tasks in order.

A task lives on the server: the page that asked for it may be closed, and opened again, while it goes on.
"""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from phosphene import imagefile
from phosphene.errors import PhospheneError, UnknownNameError, UsageError
from phosphene.resample import resize
from phosphene.studio.folder import fitted
from phosphene.studio.orders import Order
from phosphene.types import Image, Size, Step

State = Literal["waiting", "dreaming", "done", "stopped", "failed"]

FRAME_SIDE = 1280
"""Long side, in px, of the pictures that are shown while a dream grows; what is saved keeps its size."""


@dataclass
class Task:
    """One order on its way; the worker writes to it, and any number of pages read `progress`."""

    order: Order
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    stop: threading.Event = field(default_factory=threading.Event)
    notes: tuple[str, ...] = ()
    size: Size | None = None
    scores: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    latest: dict[str, Any] = field(default_factory=dict)
    picture: str | None = None
    command: str | None = None
    error: str | None = None
    image: Image | None = None
    _frame: tuple[int, bytes] = (0, b"")

    def hear(self, step: Step) -> None:
        """Note a step of the dream."""
        if step.step == 1:
            self.starts.append(len(self.scores))
        self.image = step.image
        self.latest = {
            "octave": step.octave,
            "octaves": step.octaves,
            "step": step.step,
            "steps": step.steps,
            "left": step.seconds_left,
            "progress": step.progress,
        }
        self.scores.append(step.score)

    def report(self, since: int = 0) -> dict[str, Any]:
        """Return how it stands, with the scores from step `since` on."""
        names = ("id", "state", "notes", "size", "picture", "command", "error", "starts")
        known = {name: getattr(self, name) for name in names}
        steps = len(self.scores)
        return {
            **self.latest,
            **known,
            "title": self.order.title,
            "photograph": self.order.photograph,
            "order": self.order.model_dump(mode="json"),
            "stopping": self.stop.is_set(),
            "steps_done": steps,
            "scores": self.scores[since:steps],
        }

    def summary(self) -> dict[str, Any]:
        """Return what others in the queue see of it."""
        return {"id": self.id, "title": self.order.title, "state": self.state, "left": self.latest.get("left")}

    def frame(self) -> bytes:
        """Return the picture as it is now, as a JPEG; made when someone looks, and once a step."""
        step, image = len(self.scores), self.image
        if image is not None and self._frame[0] != step:
            small = resize(image, fitted(image.shape[1], image.shape[2], FRAME_SIDE)).cpu()
            self._frame = (step, imagefile.encode(small, "JPEG"))
        if not self._frame[1]:
            raise UnknownNameError("frame", self.id, [])
        return self._frame[1]

    def end(self) -> None:
        """Let go of the image, and keep its last frame for pages that heard of a step and have not looked yet."""
        if self.image is not None:
            self.frame()
        self.image = None


class Queue:
    """Tasks in the order in which they came; `work` does one and returns the state that it ended in.

    At most `longest` may wait, and the last `kept` finished ones are remembered.
    """

    def __init__(self, work: Callable[[Task], State], longest: int = 100, kept: int = 200) -> None:
        self._work, self._longest, self._kept = work, longest, kept
        self._tasks: dict[str, Task] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, order: Order) -> Task:
        """Put an order at the end. Raises `UsageError` where too many wait already."""
        with self._changed:
            if len(self.waiting()) >= self._longest:
                raise UsageError(f"{self._longest} dreams are waiting already: try again when some are done")
            task = Task(order)
            self._tasks[task.id] = task
            self._changed.notify()
        return task

    def task(self, id: str) -> Task:
        """Return a task by its id. Raises `UnknownNameError` for one that never was or is forgotten."""
        if id not in self._tasks:
            raise UnknownNameError("dream", id, [], "It was made before the studio was started, or long ago.")
        return self._tasks[id]

    def stop(self, id: str) -> Task:
        """End a task after its present step, or before it begins."""
        with self._changed:
            task = self.task(id)
            task.stop.set()
            if task.state == "waiting":
                task.state = "stopped"
        return task

    def waiting(self) -> list[Task]:
        """Return those whose turn has not come."""
        return [task for task in list(self._tasks.values()) if task.state == "waiting"]

    def unfinished(self) -> list[Task]:
        """Return the one that dreams, and those that wait, in order."""
        return [task for task in list(self._tasks.values()) if task.state in ("dreaming", "waiting")]

    def ahead_of(self, task: Task) -> int:
        """Count the tasks whose turn comes before this one's."""
        with self._changed:
            return self.unfinished().index(task) if task.state == "waiting" else 0

    def close(self) -> None:
        """Stop what dreams, keeping what there is, and let the thread end."""
        with self._changed:
            self._closing = True
            for task in self.unfinished():
                task.stop.set()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task.state = self._work(task)
            except PhospheneError as error:
                task.state, task.error = "failed", str(error)
            except Exception as error:
                task.state, task.error = "failed", f"the studio met an error of its own: {error!r}"
            task.end()

    def _next(self) -> Task | None:
        """Wait for the next task, and forget the oldest finished ones; None when the queue closes."""
        with self._changed:
            while not self._closing and not self.waiting():
                self._changed.wait()
            if self._closing:
                return None
            finished = [id for id, task in self._tasks.items() if task.state not in ("waiting", "dreaming")]
            for id in finished[: -self._kept]:
                del self._tasks[id]
            task = self.waiting()[0]
            task.state = "dreaming"
            return task
