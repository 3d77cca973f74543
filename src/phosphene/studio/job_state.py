"""One order on its way, from the queue to a picture or a comparison."""

import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from phosphene import imagefile
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import resize
from phosphene.errors import UnknownNameError
from phosphene.studies.run.folder import Progress
from phosphene.studio.requests import Ordered
from phosphene.types import Image, Size, Step

if TYPE_CHECKING:  # for PyAV may be missing
    from phosphene.film.run import FilmProgress

State = Literal["waiting", "dreaming", "done", "stopped", "failed"]

FRAME_SIDE = 1280
"""Long side, in px, of the pictures that are shown while a dream grows; what is saved keeps its size."""


@dataclass
class Task:
    """One order on its way; the worker writes to it, and any number of pages read `report`."""

    order: Ordered
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    stop: threading.Event = field(default_factory=threading.Event)
    notes: tuple[str, ...] = ()
    size: Size | None = None
    scores: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    latest: dict[str, Any] = field(default_factory=dict)
    cells: set[str] = field(default_factory=set)
    picture: str | None = None
    command: str | None = None
    error: str | None = None
    image: Image | None = None
    _frame: tuple[int, bytes] = (0, b"")

    @property
    def unfinished(self) -> bool:
        """Whether it waits or dreams."""
        return self.state in ("waiting", "dreaming")

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

    def hear_of_cells(self, progress: Progress) -> None:
        """Note a step or the end of one of a comparison's cells."""
        (self.cells.discard if progress.ended else self.cells.add)(progress.cell)
        self.latest = {
            "done": progress.done,
            "of": progress.cells,
            "left": progress.seconds_left,
            "progress": progress.share,
            "cells": sorted(self.cells),
        }

    def hear_of_frame(self, now: "FilmProgress") -> None:
        """Note a frame of a film."""
        self.image = now.frame.image
        self.latest = {
            "frame": now.frame.index,
            "frames": now.frames,
            "left": now.seconds_left,
            "progress": min(1.0, now.frame.index / max(now.frames, 1)),
        }
        self.scores.append(now.frame.change)

    def report(self, since: int = 0) -> dict[str, Any]:
        """Return how it stands, with the scores from step `since` on."""
        names = ("id", "state", "notes", "size", "picture", "command", "error", "starts")
        known = {name: getattr(self, name) for name in names}
        steps = len(self.scores)
        return {
            **self.latest,
            **known,
            "title": self.order.title,
            "order": self.order.model_dump(mode="json"),
            "stopping": self.stop.is_set(),
            "steps_done": steps,
            "scores": self.scores[since:steps],
        }

    def summary(self) -> dict[str, Any]:
        """Return what others in the queue see of it."""
        order = self.order.model_dump(mode="json")
        left = self.latest.get("left")
        return {"id": self.id, "title": self.order.title, "state": self.state, "left": left, "order": order}

    def frame(self) -> bytes:
        """Return the picture as it is now, as a JPEG; made when someone looks, and once a step."""
        step, image = len(self.scores), self.image
        if image is not None and self._frame[0] != step:
            small = resize(image, fit_within((image.shape[1], image.shape[2]), FRAME_SIDE)).cpu()
            self._frame = (step, imagefile.encode(small, "JPEG"))
        if not self._frame[1]:
            raise UnknownNameError("frame", self.id, [])
        return self._frame[1]

    def end(self) -> None:
        """Let go of the image, and keep its last frame for pages that heard of a step and have not looked yet."""
        if self.image is not None:
            self.frame()
        self.image = None
