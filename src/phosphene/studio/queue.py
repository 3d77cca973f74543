"""Who waits, who dreams, and what became of it. One queue is one thread that works through its tasks in order.

A task lives on the server: the page that asked for it may be closed, and opened again, while it goes on.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from phosphene.errors import PhospheneError, UnknownNameError, UsageError
from phosphene.imagefile import write_atomically
from phosphene.studio.job_state import State, Task
from phosphene.studio.requests import Ordered, read_order


class Queue:
    """Tasks in the order in which they came; `work` does one and returns the state that it ended in.

    `told` makes of an error's sentence what visitors see of it. At most `longest` may wait, and the last `kept`
    finished ones are remembered. The orders of those that wait are files in `folder`, if there is one, so that a queue
    over the same folder takes them up again.
    """

    def __init__(
        self,
        work: Callable[[Task], State],
        told: Callable[[str], str] = str,
        longest: int = 100,
        kept: int = 200,
        folder: Path | None = None,
    ) -> None:
        self._work, self._told, self._longest, self._kept, self._folder = work, told, longest, kept, folder
        self._tasks = {task.id: task for task in _left_in(folder)} if folder else {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, order: Ordered) -> Task:
        """Put an order at the end. Raises `UsageError` where too many wait already."""
        with self._changed:
            if len(self.waiting()) >= self._longest:
                raise UsageError(f"{self._longest} dreams are waiting already: try again when some are done")
            task = Task(order)
            if self._folder:
                write_atomically(_file(self._folder, task), order.model_dump_json().encode())
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
                self._leave(task, "stopped")
        return task

    def latest(self, order: Ordered) -> Task | None:
        """Return the task that an order was given as last, if it was."""
        return next((task for task in reversed(list(self._tasks.values())) if task.order == order), None)

    def waiting(self) -> list[Task]:
        """Return those whose turn has not come."""
        return [task for task in list(self._tasks.values()) if task.state == "waiting"]

    def unfinished(self) -> list[Task]:
        """Return the one that dreams, and those that wait, in order."""
        return [task for task in list(self._tasks.values()) if task.unfinished]

    def ahead_of(self, task: Task) -> int:
        """Count the tasks whose turn comes before this one's."""
        with self._changed:
            return self.unfinished().index(task) if task.state == "waiting" else 0

    def close(self) -> None:
        """Stop what dreams, keeping what there is, and let the thread end; what waits has its file."""
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
                task.state, task.error = "failed", self._told(str(error))
            except Exception as error:
                task.state, task.error = "failed", self._told(f"internal error: {error!r}")
            with suppress(Exception):  # a last frame that cannot be shown ends no queue
                task.end()

    def _next(self) -> Task | None:
        """Wait for the next task, and forget the oldest finished ones; None when the queue closes."""
        with self._changed:
            while not self._closing and not self.waiting():
                self._changed.wait()
            if self._closing:
                return None
            finished = [id for id, task in self._tasks.items() if not task.unfinished]
            for id in finished[: -self._kept]:
                del self._tasks[id]
            task = self.waiting()[0]
            self._leave(task, "dreaming")
            return task

    def _leave(self, task: Task, state: State) -> None:
        """Let a task wait no longer."""
        task.state = state
        if self._folder:
            _file(self._folder, task).unlink(missing_ok=True)


def _left_in(folder: Path) -> list[Task]:
    """The tasks that waited when the studio ended, in their order; what cannot be read is left where it is."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            found.append(Task(read_order(path.read_bytes()), id=path.stem))
        except ValidationError:
            continue
    return found


def _file(folder: Path, task: Task) -> Path:
    return folder / f"{task.id}.json"
