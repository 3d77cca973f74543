"""Where to cut a network in stages, and the tiles of each: by estimated cost, within the memory that is allowed.

Nothing is computed but shapes. A network is surveyed once, on a small image of no content: what it costs and keeps
between each two places where it can be cut. Cost and memory of all stages, from any cut to any other, follow from that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import combinations, pairwise
from math import inf, lcm

import torch
from torch import Tensor

from phosphene.dreaming.objective import Scoring, View
from phosphene.dreaming.tiling import spans
from phosphene.errors import UsageError
from phosphene.networks.graph import on_paper
from phosphene.networks.layers import Work, receptive_fields, work_between
from phosphene.networks.network import Features, Network
from phosphene.recipe.settings import Recipe, Tiles
from phosphene.recipe.terms import Cut
from phosphene.setup.builders import (
    PlannedStage,
    bounded_fields,
    cut_stride,
    halo_of,
    nodes_between,
    places_to_cut,
    planned_stages,
    sees_whole,
)
from phosphene.setup.memory import LEAST_TILE, WORKSPACE, LiveBytes, spell_bytes
from phosphene.types import Activation, Size

TILE_SIDES = (8192, 6144, 4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 192, 128, LEAST_TILE)
"""The tiles to choose from, in px."""

MOST_CUTS = 2

PROBE_SIDE = 1024
"""Side of the image that a network is surveyed on, in px; larger where the network needs more."""

MOST_WIDENED = 1.4
"""How many times as many numbers as the narrowest bottleneck in front of it a place to cut at may have."""

MACS_PER_NUMBER = 50
"""Multiply-adds that take as long as writing one number of an activation."""

MACS_PER_PIXEL_ON_DISK = 40_000
"""Multiply-adds that take as long as reading, summing up and writing a pixel of a step by way of the disk."""

MACS_PER_NUMBER_ON_DISK = 1500
"""Multiply-adds that take as long as writing a number at a cut by way of the disk, and reading it again."""

FLOAT = 4
"""Bytes of a number."""

FORWARD, FORWARD_AND_BACK = 1, 2.4
"""What a stage's work costs on the way forward, and on the way forward and back, as a multiple of it."""


@dataclass(frozen=True)
class Segment:
    """What lies between two neighbouring places to cut at, for each pixel of a picture.

    `work` is in multiply-adds, and the rest in bytes. `weight_bytes` are those of its layers, whatever the picture. Of
    a forward and backward pass over a whole image, `peak_forward` and `peak_backward` are the most that is live in this
    segment, and `live_before` is what was live when the forward pass came to it.
    """

    work: float
    weight_bytes: int
    peak_forward: float
    peak_backward: float
    live_before: float
    input_bytes: float


@dataclass(frozen=True)
class Tiling:
    """A stage's stride and the halo of its tiles, in px."""

    stride: int
    halo: int


@dataclass(frozen=True)
class StageEstimate:
    """A stage of a survey; it has no `tiling` where a layer sees everything."""

    start: str | None
    segments: Sequence[Segment]
    tiling: Tiling | None
    is_last: bool

    def windows(self, length: int, tile: int | None) -> tuple[int, int]:
        """Return the length of the longest window and of all windows, along an axis of `length` px."""
        if tile is None or self.tiling is None:
            return length, length
        return _windows(length, tile, self.tiling.halo, self.tiling.stride)

    def bytes(self, size: Size, tile: int | None, batch: int, gradients: int) -> float:
        """Estimate the peak, in bytes."""
        rows, columns = (self.windows(length, tile)[0] for length in size)
        together = 1 if tile is None else batch
        return WORKSPACE * rows * columns * together * self._peak(gradients)

    def _peak(self, gradients: int) -> float:
        """The peak of a pixel. With several gradients, what the forward pass saved stays until the last is known."""
        base = self.segments[0].live_before
        forward = max(segment.peak_forward for segment in self.segments)
        if gradients == 1:
            return max(forward, *(segment.peak_backward for segment in self.segments)) - base
        return forward - base + max(segment.peak_backward - segment.live_before for segment in self.segments)

    def cost(self, size: Size, tile: int | None, workers: int, batch: int) -> float:
        """Estimate the work, and what workers wait for each other: all but one for a batch of tiles at most.

        (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969.)
        """
        (longest_rows, rows), (longest_columns, columns) = (self.windows(length, tile) for length in size)
        largest = min(batch * longest_rows * longest_columns, rows * columns)
        times = FORWARD_AND_BACK if self.is_last else FORWARD + FORWARD_AND_BACK
        return times * (rows * columns + (workers - 1) * largest) * sum(segment.work for segment in self.segments)


@dataclass(frozen=True)
class StagePlan:
    """Stages, with the peak of a step in bytes, the bytes of the activations and gradients at the cuts, and the cost of
    a step as a multiple of the whole image's in memory."""

    stages: tuple[PlannedStage, ...]
    needed: int
    at_cuts: int
    cost: float

    def of(self, recipe: Recipe) -> Recipe:
        """Write the stages into a recipe."""
        first, *others = self.stages
        cuts = tuple(str(Cut(str(step.start), step.tile)) for step in others)
        return recipe.but(tile=first.tile or "none", cuts=cuts)


@dataclass(frozen=True)
class Survey:
    """What it takes `workers` to look at a picture of `size` in stages, each a batch of tiles at a time.

    What is known at cuts is held in memory where pictures are (`in_memory`), or else on disk.
    """

    network: Network
    scoring: Scoring
    tiles: Tiles
    size: Size
    workers: int = 1
    _known: dict[tuple[str | None, str | None], StageEstimate] = field(init=False, repr=False, default_factory=dict)

    def begin(self) -> None:
        """Look at the network, which loads what an estimate needs."""
        self._segments  # noqa: B018

    def asked(self, in_memory: bool = True) -> StagePlan:
        """Estimate the stages that the recipe asks for."""
        planned = planned_stages(self.network, self.scoring, self.tiles)
        stages = self._stages([stage.start for stage in planned])
        return self._plan(stages, [stage.tile for stage in planned], in_memory)

    def best(self, budget: int, in_memory: bool = True) -> StagePlan:
        """Return the stages that cost least of those that take `budget` bytes at most; `UsageError` if none do."""
        ways = [self._stages(starts) for starts in self._cuttings()]
        fitting = [plan for stages in ways if (plan := self._fitted(stages, budget, in_memory))]
        if fitting:
            return min(fitting, key=lambda plan: (plan.cost, len(plan.stages)))
        smallest = [[None if stage.tiling is None else TILE_SIDES[-1] for stage in stages] for stages in ways]
        plans = (self._plan(*plan, in_memory) for plan in zip(ways, smallest, strict=True))
        least = min(plan.needed for plan in plans)
        raise UsageError(
            f"{spell_bytes(budget)} are left for the network, and the least that would do is {spell_bytes(least)}: "
            f"allow {spell_bytes(least - budget)} more --memory, or choose a layer less deep"
        )

    def _cuttings(self) -> Iterator[list[str | None]]:
        """Where stages may begin."""
        most = MOST_CUTS if not isinstance(self.tiles.halo, int) else 0
        for count in range(most + 1):
            for cuts in combinations(self._cut_points, count):
                yield [None, *cuts]

    def _stages(self, starts: Sequence[str | None]) -> list[StageEstimate]:
        return [self._stage(start, end, len(starts) == 1) for start, end in pairwise([*starts, None])]

    def _stage(self, start: str | None, end: str | None, is_alone: bool) -> StageEstimate:
        if (start, end) not in self._known:
            places = [None, *self._cut_points]
            first, last = places.index(start), len(places) if end is None else places.index(end)
            tiling = self._tiling(start, end, is_alone)
            self._known[start, end] = StageEstimate(start, self._segments[first:last], tiling, end is None)
        return self._known[start, end]

    def _fitted(self, stages: Sequence[StageEstimate], budget: int, in_memory: bool) -> StagePlan | None:
        """Give each stage the tile that costs least of those with which it fits; None where one has none."""
        left = budget - self.weights - self._at_cuts(stages) * in_memory
        tiles = []
        for stage in stages:
            sides = (None,) if stage.tiling is None else (None, *TILE_SIDES)
            fits = [tile for tile in sides if self._bytes(stage, tile) <= left]
            if not fits:
                return None
            tiles.append(min(fits, key=partial(self._cost, stage)))
        return self._plan(stages, tiles, in_memory)

    def _plan(self, stages: Sequence[StageEstimate], tiles: Sequence[int | None], in_memory: bool) -> StagePlan:
        pairs = list(zip(stages, tiles, strict=True))
        most = self.weights + max(self._bytes(stage, tile) for stage, tile in pairs)
        pixels = self.size[0] * self.size[1]
        whole = FORWARD_AND_BACK * sum(segment.work for segment in self._segments) * pixels
        at_cuts = self._at_cuts(stages)
        on_disk = 0 if in_memory else MACS_PER_PIXEL_ON_DISK * pixels + MACS_PER_NUMBER_ON_DISK * at_cuts / FLOAT
        return StagePlan(
            stages=tuple(PlannedStage(stage.start, tile) for stage, tile in pairs),
            needed=int(most + at_cuts * in_memory),
            at_cuts=int(at_cuts),
            cost=(on_disk + sum(self._cost(stage, tile) for stage, tile in pairs)) / whole,
        )

    def _cost(self, stage: StageEstimate, tile: int | None) -> float:
        return stage.cost(self.size, tile, self.workers, self.tiles.batch)

    def _bytes(self, stage: StageEstimate, tile: int | None) -> float:
        return stage.bytes(self.size, tile, self.tiles.batch, self.scoring.gradients)

    def _at_cuts(self, stages: Sequence[StageEstimate]) -> float:
        """The bytes of the activations and of the gradients at the cuts."""
        inputs = sum(stage.segments[0].input_bytes for stage in stages if stage.start)
        return inputs * (1 + self.scoring.gradients) * self.size[0] * self.size[1]

    @property
    def weights(self) -> int:
        """The bytes of the weights of all stages, which are kept."""
        return sum(segment.weight_bytes for segment in self._segments)

    def _tiling(self, start: str | None, end: str | None, is_alone: bool) -> Tiling | None:
        """A stage's stride and its halo, in px; None where a layer sees everything."""
        nodes = nodes_between(self.network, self.scoring, start, end)
        seen = receptive_fields(self.network, start)
        if sees_whole(self.scoring, nodes) or any(seen[node] is None for node in nodes):
            return None
        unit, fields = cut_stride(self.network, start), bounded_fields(self.network, nodes, start)
        halo = halo_of(self.network, self.tiles, fields, is_alone)
        return Tiling(unit * lcm(*(field.tile_stride for field in fields.values())), unit * halo)

    @cached_property
    def _cut_points(self) -> list[str]:
        """The bottlenecks of the network, and the places where the recipe cuts."""
        all_points = tuple(places_to_cut(self.network, self.scoring))
        asked = {stage.start for stage in planned_stages(self.network, self.scoring, self.tiles)}
        least, points = inf, []
        for point, work in zip(all_points, self._work(all_points)[1:], strict=True):
            if work.given <= MOST_WIDENED * least or point in asked:
                points.append(point)
            least = min(least, work.given)
        return points

    def _work(self, points: tuple[str, ...]) -> list[Work]:
        return work_between(self.network, self.scoring.layers, points, self._probe)

    @property
    def _probe(self) -> Size:
        side = max(PROBE_SIDE, self.network.card.min_side)
        return side, side

    @cached_property
    def _segments(self) -> list[Segment]:
        """All that lies between two neighbouring places to cut at."""
        pixels, points = self._probe[0] * self._probe[1], tuple(self._cut_points)
        parts = [self._part(start, end) for start, end in pairwise((None, *points, None))]
        return [
            Segment(
                (work.multiplications + MACS_PER_NUMBER * work.written) / pixels,
                part.nbytes,
                *(forward / pixels, back / pixels, kept / pixels, given / pixels),
            )
            for work, (forward, back, kept, given), part in zip(
                self._work(points), self._held(points, parts), parts, strict=True
            )
        ]

    def _held(self, points: tuple[str, ...], parts: Sequence[Features]) -> list[tuple[int, int, int, int]]:
        """Return of each segment what is held at most on the way forward and on the way back, what was held before it,
        and its input: all in bytes of the probe."""
        forward, back, kept, given = ([0] * len(parts) for _ in range(4))
        with on_paper(*parts), LiveBytes() as live:
            x = images = torch.empty(1, 3, *self._probe, device=self.network.device, requires_grad=True)
            activations: dict[str, Activation] = {}
            for number, part in enumerate(parts):
                kept[number], given[number], live.peak = live.live - x.nbytes, x.nbytes, live.live
                found = part(x)
                activations |= {name: found[name] for name in found if name in self.scoring.layers}
                forward[number] = live.peak
                if number < len(points):
                    x = found[points[number]]
                    x.register_hook(partial(_note, live, back, number + 1))  # type: ignore[no-untyped-call]
                del found
            targets, _ = Scoring(self.scoring.on_paper.scores)(
                activations, {name: _seen(a) for name, a in activations.items()}
            )
            forward[-1] = live.peak
            del activations, x
            live.peak = live.live
            torch.autograd.grad(targets[0], images)  # type: ignore[arg-type]
            back[0] = live.peak
        return list(zip(forward, back, kept, given, strict=True))

    def _part(self, start: str | None, end: str | None) -> Features:
        return self.network.part(nodes_between(self.network, self.scoring, start, end), start)


@lru_cache(maxsize=4096)
def _windows(length: int, tile: int, halo: int, stride: int) -> tuple[int, int]:
    lengths = [span.window_stop - span.window_start for span in spans(length, tile, halo, stride)]
    return max(lengths), sum(lengths)


def _note(live: LiveBytes, back: list[int], number: int, _: Tensor) -> None:
    """Note what was held at most behind a cut, whose gradient is known now."""
    back[number], live.peak = live.peak, live.live


def _seen(activation: Activation) -> View:
    return View((activation.shape[2], activation.shape[3]))
