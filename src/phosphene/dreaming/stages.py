"""The one builder of gradients: a network in stages, each of which is evaluated on its whole input or tile by tile.

Receptive fields, and so the halos of tiles, grow in the deep part of a network, where activations are small. So the
network is cut where all its paths pass through one activation. The shallow part runs forward in tiles, without
gradients, to the whole picture's activation at the cut; the deep part runs forward and backward, to the gradient at the
cut; and the shallow part runs forward and backward, given that gradient. The extra cost is one forward run of the
shallow part, and the halo of its tiles covers its own receptive field alone.

There may be any number of cuts. With none, a picture is evaluated whole or in the tiles of `tiling`: those are the
simplest cases. A stage that is not cut into tiles may see all of its input, as a class's logit does.

Pictures, activations and gradients are read and written by rows and columns, so they may lie in memory or on disk, and
each batch of tiles may be evaluated in any process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.gradient import check_finite, differentiate, stacked
from phosphene.dreaming.objective import Scoring, View
from phosphene.dreaming.resample import wrapped
from phosphene.dreaming.tiling import Tile, round_up, spans, whole
from phosphene.types import Activation, FeaturesFn, GradientFn, Image, Map, Shift, Size

Part = Float[Tensor, "channels rows columns"]
CPU = torch.device("cpu")


@runtime_checkable
class TensorStore(Protocol):
    """A picture, activations or gradients [channels, rows, columns], wherever they are."""

    def read(self, rows: slice, columns: slice) -> Part:
        """Read a part."""
        ...

    def write(self, numbers: Part, rows: slice, columns: slice) -> None:
        """Write a part."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A tensor in memory, as it is when it is rolled by `shift`; it is never moved."""

    numbers: Part
    shift: Shift = (0, 0)

    def read(self, rows: slice, columns: slice) -> Part:
        """Return a part; a view, where it does not reach over the edge."""
        down, across = self._places(rows, columns)
        return _joined([_joined([self.numbers[:, r, c] for c in across], 2) for r in down], 1)

    def write(self, numbers: Part, rows: slice, columns: slice) -> None:
        """Put a part into its place."""
        down, across = self._places(rows, columns)
        for r, band in zip(down, _split(numbers, down, 1), strict=True):
            for c, part in zip(across, _split(band, across, 2), strict=True):
                self.numbers[:, r, c] = part

    def _places(self, rows: slice, columns: slice) -> tuple[list[slice], list[slice]]:
        _, height, width = self.numbers.shape
        return wrapped(rows, self.shift[0], height), wrapped(columns, self.shift[1], width)


@dataclass(frozen=True)
class Stage:
    """A part of a network, from one cut to the next, and how it looks at its input: px are the units of that.

    `features` maps images, or activations at the cut where the stage begins, to the activation at the cut where it
    ends, `cut` (None at the network's end), of `channels`, and to those layers of the scoring that lie between.
    `gradient_indices` are those of the scoring's gradients that this stage or a later one contributes to, and
    `downstream_indices` those that a later one does.

    `tile` and `halo` are in px; without a tile it looks at everything at once. `batch` is how many windows are looked
    at together, and windows begin at multiples of `stride`, a common multiple of the strides of what `features` gives,
    `strides`. With a halo of `ReceptiveField.exact_halo` the gradient is the whole image's up to rounding. `sizes` says
    how many rows and columns of units these have for an input of a size. `min_side` is the smallest side, in px, that
    the network can see: a smaller image is repeated up to it, since with the jitter an image wraps around anyway.
    """

    features: FeaturesFn
    scoring: Scoring
    cut: str | None = None
    channels: int = 0
    gradient_indices: tuple[int, ...] = (0,)
    downstream_indices: tuple[int, ...] = ()
    tile: int | None = None
    halo: int = 0
    stride: int = 1
    sizes: Callable[[Size], Mapping[str, Size]] = field(default=lambda _: {})
    strides: Mapping[str, int] = field(default_factory=dict)
    min_side: int = 1
    batch: int = 1

    def tiles(self, size: Size) -> list[Tile]:
        """Cut an input into tiles; an image with an axis shorter than the network can see is not cut."""
        if self.tile is None or min(size) < self.min_side:
            return [whole(size)]
        rows, columns = (spans(length, self.tile, self.halo, self.stride, self.min_side) for length in size)
        return [Tile(down, across) for down in rows for across in columns]

    def batches(self, size: Size) -> list[list[Tile]]:
        """Put tiles whose windows have one size together, at most `batch` of them."""
        alike: dict[Size, list[Tile]] = {}
        for tile in self.tiles(size):
            alike.setdefault(tile.window_size, []).append(tile)
        return [
            tiles[start : start + self.batch] for tiles in alike.values() for start in range(0, len(tiles), self.batch)
        ]

    @property
    def side(self) -> int | None:
        """The side of a tile in px, as it is cut: a multiple of the stride."""
        return None if self.tile is None else round_up(max(self.tile, 1), self.stride)

    @property
    def side_at_cut(self) -> int | None:
        """The side of a tile in units of the cut where the stage ends."""
        return None if self.side is None else self.side // self.strides.get(str(self.cut), 1)


Stages = Callable[[Size], Sequence[Stage]]
"""The stages in which a picture of a size is looked at, from the first to the last."""


@dataclass(frozen=True)
class StageRun:
    """A stage's work on a picture of `picture_size`: forward, or forward and back, on batches of tiles in any process.

    The stage is number `number` of `stages_of`. `source` is its input, of `size`, and `cut_gradients` has the gradients
    at the cut where it ends, concatenated along channels. `roll` is the picture's, as fractions of its size.
    """

    stages_of: Stages
    picture_size: Size
    number: int
    size: Size
    source: TensorStore
    target: TensorStore
    cut_gradients: TensorStore | None = None
    roll: tuple[float, float] = (0.0, 0.0)
    device: torch.device = CPU

    @property
    def stage(self) -> Stage:
        """The stage that works."""
        return self.stages_of(self.picture_size)[self.number]

    def forward(self, tiles: Sequence[Tile]) -> None:
        """Write the tiles' units at the cut where the stage ends."""
        stride, total = self._at_cut
        with torch.no_grad():
            found = self.stage.features(stacked(self._windows(tiles)))[str(self.stage.cut)]
        for tile, units in zip(tiles, found, strict=True):
            rows, columns = (slice(*span.own_units(stride)) for span in tile.spans)
            places = [span.units(stride, length) for span, length in zip(tile.spans, total, strict=True)]
            self.target.write(units[:, rows, columns], *places)

    def back(self, tiles: Sequence[Tile]) -> list[Float[Tensor, " terms"]]:
        """Write the tiles' gradients, concatenated along channels, and return each tile's scores."""
        stage, views = self.stage, [self._views(tile) for tile in tiles]
        downstream = {} if self.cut_gradients is None else self._downstream(tiles, self.cut_gradients)
        found = differentiate(
            stage.features, stage.scoring, self._windows(tiles), views, stage.min_side, stage.cut, downstream
        )
        for tile, (scores, gradients) in zip(tiles, found, strict=True):
            own = tile.own(gradients)
            check_finite(stage.scoring, scores, own)
            self.target.write(own.flatten(0, 1), tile.down.own, tile.across.own)
        return [scores.cpu() for scores, _ in found]

    @property
    def _at_cut(self) -> tuple[int, Size]:
        """Of the cut where the stage ends: its stride, and how many units there are."""
        cut = str(self.stage.cut)
        return self.stage.strides.get(cut, 1), self.stage.sizes(self.size)[cut]

    def _windows(self, tiles: Sequence[Tile]) -> list[Part]:
        return [self.source.read(tile.down.window, tile.across.window).to(self.device) for tile in tiles]

    def _downstream(self, tiles: Sequence[Tile], cut_gradients: TensorStore) -> dict[int, Activation]:
        """The gradients at the cut where the stage ends, of the windows, by number."""
        stride, total = self._at_cut
        parts = []
        for tile in tiles:
            places = zip(tile.spans, self.size, total, strict=True)
            rows, columns = (span.window_units(stride, length, units) for span, length, units in places)
            parts.append(cut_gradients.read(rows, columns))
        given = torch.split(stacked(parts).to(self.device), self.stage.channels, dim=1)
        return dict(zip(self.stage.downstream_indices, given, strict=True))

    def _views(self, tile: Tile) -> Mapping[str, View] | tuple[float, float]:
        """What the stage's layers are seen through, of a tile; the roll alone, if that is everything."""
        if tile == whole(self.size):
            return self.roll
        down, across = tile.spans
        return {
            name: View(
                whole=self.stage.sizes(self.size)[name],
                origin=(down.window_start // stride, across.window_start // stride),
                rows=down.own_units(stride),
                columns=across.own_units(stride),
                shift=self.roll,
            )
            for name, stride in self.stage.strides.items()
        }


Allocate = Callable[[str, tuple[int, int, int], int | None], TensorStore]
"""Allocates a tensor of a name and a shape, whose parts are written in tiles of a side if there is one."""


def run_stages(first: StageRun, allocate: Allocate, over: Map = map) -> Float[Tensor, " terms"]:
    """Look at a picture in stages, write its gradients, concatenated along channels, and return the scores.

    `first` is the way back through the first stage, from the picture to its gradients, but for its `cut_gradients`.
    `over` applies a function to batches of tiles.
    """
    stages = first.stages_of(first.picture_size)
    runs = [first]
    for number, stage in enumerate(stages[:-1]):
        size = runs[-1]._at_cut[1]
        activation = allocate(f"cut-{number + 1}", (stage.channels, *size), stage.side_at_cut)
        for _ in over(replace(runs[-1], target=activation).forward, stage.batches(runs[-1].size)):
            pass
        runs.append(replace(first, number=number + 1, size=size, source=activation))
    scores, cut_gradients = torch.zeros(len(stages[0].scoring.scores)), None
    while runs:
        work = replace(runs.pop(), cut_gradients=cut_gradients)
        if work.number:
            channels = len(work.stage.gradient_indices) * stages[work.number - 1].channels
            target = allocate(f"cut-gradients-{work.number}", (channels, *work.size), work.stage.side)
            work = replace(work, target=target)
        for found in over(work.back, work.stage.batches(work.size)):
            for tile_scores in found:
                scores = scores + tile_scores
        cut_gradients = work.target
    return scores


def gradient_in_stages(stages_of: Stages) -> GradientFn:
    """Build the `GradientFn` of pictures in memory."""

    def gradient_in_stages(image: Image, shift: Shift) -> tuple[float, Image]:
        size = (image.shape[1], image.shape[2])
        scoring = stages_of(size)[0].scoring
        gradients = image.new_empty(scoring.gradients * 3, *size)
        source, target = InMemory(image, shift), InMemory(gradients, shift)
        first = StageRun(stages_of, size, 0, size, source, target, roll=roll_of(shift, size), device=image.device)
        scores = run_stages(first, lambda _name, shape, _side: channels_last_store(shape, image))
        return float(scores.sum()), scoring.combine(gradients.view(-1, *image.shape))

    return gradient_in_stages


def whole_image_gradient(features: FeaturesFn, scoring: Scoring, min_side: int = 1) -> GradientFn:
    """Build the `GradientFn` that looks at the whole image at once: a single stage, without tiles."""
    stage = Stage(features, scoring, gradient_indices=tuple(range(scoring.gradients)), min_side=min_side)
    return gradient_in_stages(lambda _: (stage,))


def roll_of(shift: Shift, size: Size) -> tuple[float, float]:
    """Return a shift as fractions of a picture's height and width."""
    return shift[0] / size[0], shift[1] / size[1]


def channels_last_store(shape: tuple[int, int, int], like: Tensor) -> InMemory:
    """Allocate a tensor in memory, with channels last."""
    channels, rows, columns = shape
    return InMemory(like.new_empty(rows, columns, channels).permute(2, 0, 1))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _split(part: Tensor, places: list[slice], dim: int) -> tuple[Tensor, ...]:
    return torch.split(part, [place.stop - place.start for place in places], dim)
