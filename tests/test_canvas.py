"""Pictures on disk: the same dream as in memory, to the last bit."""

from collections import OrderedDict

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn

from phosphene.disk import raster, strips
from phosphene.disk.raster import Raster, create
from phosphene.disk.surface import Surface
from phosphene.dreaming.exact_sums import SEGMENT, sums_of_absolutes, sums_of_squares
from phosphene.dreaming.norms import MEAN_ABS, NORMS, Division
from phosphene.dreaming.objective import Energy, Mean, Scoring
from phosphene.dreaming.render import finish, render
from phosphene.dreaming.resample import blur, laplacian_bands, merge_bands, resize
from phosphene.errors import StoreError
from phosphene.networks.network import Network
from phosphene.recipe.settings import Recipe
from phosphene.setup.builders import gradient_fn, stages_of


@pytest.fixture(scope="module")
def network(card, randomise):
    layers = OrderedDict(early=nn.Conv2d(3, 4, 3, 2, 1), act=nn.SiLU(), deep=nn.Conv2d(4, 5, 3, 2, 1))
    return Network(card(), randomise(nn.Sequential(layers)), "none")


def on_disk(folder, picture, name="photograph"):
    planes = picture if picture.ndim == 3 else picture[None]
    stored = create(folder / name, tuple(planes.shape))
    stored.write(planes, slice(0, planes.shape[1]))
    return stored


def whole(picture):
    return picture.read(slice(0, picture.shape[1]))


def dreams(network, scoring, image, recipe, folder, mask=None):
    """The last picture and the scores, in memory and on disk."""
    memory = list(
        render(image, gradient_fn(network, scoring, recipe), recipe, torch.Generator().manual_seed(1), mask=mask)
    )
    surface = Surface(folder, recipe)
    stages = stages_of(network, scoring, recipe)
    disk = list(
        render(
            on_disk(folder, image),
            surface.gradient_fn(stages, "cpu"),
            recipe,
            torch.Generator().manual_seed(1),
            mask=None if mask is None else on_disk(folder, mask, "mask"),
            medium=surface,
        )
    )
    return memory, disk, whole(surface.newest)


CASES = {
    "laplacian": {},
    "mean_abs": {"norm": "mean_abs"},
    "std": {"norm": "std"},
    "blurred": {"blur": 3.3},
    "without detail": {"detail": False},
    "masked": {},
    "balanced": {"balanced": True},
    "batches": {"batch": 4, "norm": "mean_abs", "tile": 32},
    "rough halo": {"halo": 4},
    "wide": {"octaves": 2, "blur": 1.0},
    "stages": {"cuts": ("act:64",)},
    "stages, the deep one at once, balanced": {"tile": 64, "cuts": ("act",), "balanced": True, "batch": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_on_disk_is_in_memory(network, photo, tmp_path, case):
    recipe = Recipe(**{"octaves": 3, "octave_scale": 1.3, "steps": 2, "tile": 96, "jitter": 50, **CASES[case]})
    scoring = Scoring((Energy("deep"), Mean("early", weight=-0.5)), recipe.balanced)
    size = (70, 1130) if case == "wide" else (301, 149)
    image = photo(*size, torch.float32)
    mask = photo(*size, torch.float32, seed=5)[0] if case == "masked" else None
    memory, disk, last = dreams(network, scoring, image, recipe, tmp_path, mask)
    assert [step.score for step in disk] == [step.score for step in memory]
    assert torch.equal(last, memory[-1].image)
    assert (last - image).abs().mean() > 1e-3


def test_a_norm_that_is_invented_streams_too(network, photo, tmp_path, monkeypatch):
    """It looks around itself, in parts of two sizes, measures what no other does, and divides twice."""
    contrast = Division(
        split=lambda gradient: laplacian_bands(blur(gradient, 2.0), 2),
        merge=merge_bands,
        sums=lambda part, columns: [sums_of_squares(part, columns), sums_of_absolutes(part, columns)],
        size=lambda means: means[0] / means[1],
        margin=16,  # 6 by the blur, 4 by the bands, and a multiple of eight
    )
    monkeypatch.setitem(NORMS, "std", (contrast, contrast, MEAN_ABS))
    recipe = Recipe(octaves=2, octave_scale=1.3, steps=2, tile=96, jitter=50, norm="std")
    image = photo(301, 600, torch.float32)
    memory, disk, last = dreams(network, Scoring((Energy("deep"),)), image, recipe, tmp_path)
    assert [step.score for step in disk] == [step.score for step in memory]
    assert torch.equal(last, memory[-1].image)
    assert (last - image).abs().mean() > 1e-3


@pytest.mark.parametrize("size", [(60, 6000), (6000, 80)])
def test_nothing_is_read_whole(network, photo, tmp_path, monkeypatch, size):
    """However wide or high the picture is, what is read at a time has so many pixels at most."""
    read, counts, most = Raster.read, [], 2**18

    def counting(self, *part):
        numbers = read(self, *part)
        counts.append(numbers[0].numel())
        return numbers

    recipe = Recipe(octaves=2, steps=1, tile=96, jitter=0, colour="original")
    scoring = Scoring((Energy("deep"),))
    picture = on_disk(tmp_path, photo(*size, torch.float32))
    surface, stages = Surface(tmp_path, recipe), stages_of(network, scoring, recipe)
    monkeypatch.setattr(Raster, "read", counting)
    monkeypatch.setattr(strips, "RESIZED", most)
    steps = render(
        picture,
        surface.gradient_fn(stages, "cpu"),
        recipe,
        torch.Generator().manual_seed(1),
        medium=surface,
    )
    assert len(list(steps)) == 2
    assert max(counts) <= most < size[0] * size[1]


def test_the_photographs_colours(network, photo, tmp_path):
    recipe = Recipe(octaves=1, steps=1, tile=96, colour="original")
    memory, disk, _ = dreams(network, Scoring((Energy("deep"),)), photo(150, 90, torch.float32), recipe, tmp_path)
    assert torch.equal(disk[-1].image, memory[-1].image)


@hypothesis.settings(deadline=None, max_examples=12, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    new=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resized_at_a_time=st.sampled_from([1, 5000, 2**20]),
)
@hypothesis.example(size=(300, 20), new=(200, 1), resized_at_a_time=2**20)
@hypothesis.example(size=(200, 300), new=(150, 257), resized_at_a_time=2**20)
@hypothesis.example(size=(129, 300), new=(150, 257), resized_at_a_time=1)
def test_resizing(photo, tmp_path_factory, monkeypatch, size, new, resized_at_a_time):
    monkeypatch.setattr(strips, "RESIZED", resized_at_a_time)
    folder, image = tmp_path_factory.mktemp("resize"), photo(*size, torch.float32)
    resized = Surface(folder, Recipe()).resize(on_disk(folder, image), new)
    assert torch.equal(whole(resized), resize(image, new))
    assert {path.name for path in folder.iterdir()} == {"photograph", resized.path.name}


@hypothesis.settings(deadline=None, max_examples=20, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=st.data(), shift=st.tuples(st.integers(-400, 400), st.integers(-400, 400)))
def test_a_part_of_the_rolled_picture(photo, tmp_path, data, shift):
    image = photo(40, 30, torch.float32)
    rows, columns = (
        slice(*sorted((data.draw(st.integers(0, length - 1)), data.draw(st.integers(1, length)))))
        for length in (40, 30)
    )
    hypothesis.assume(rows.start < rows.stop and columns.start < columns.stop)
    stored = on_disk(tmp_path, image)
    assert torch.equal(stored.read_rolled(rows, columns, shift), torch.roll(image, shift, (1, 2))[:, rows, columns])


def test_a_chunk_that_is_missing_or_damaged(photo, tmp_path):
    stored = on_disk(tmp_path, photo(300, 40, torch.float32))
    chunks = sorted(path for path in (stored.path / "c").rglob("*") if path.is_file())
    content = chunks[0].read_bytes()
    chunks[0].write_bytes(content[:50] + b"\0\1\2\3" + content[54:])
    with pytest.raises(StoreError, match="is damaged or in a wrong place"):
        whole(stored)
    chunks[0].unlink()
    with pytest.raises(StoreError, match="misses a chunk in rows 0 to 300"):
        whole(stored)
    assert stored.read(slice(128, 300)).shape == (3, 172, 40)


def test_a_store_that_is_gone(photo, tmp_path):
    stored = on_disk(tmp_path, photo(20, 20, torch.float32))
    raster.remove(stored.path)
    with pytest.raises(StoreError, match=r"photograph (could not be read|misses a chunk)"):
        whole(stored)


def test_a_listener_sees_every_so_many_pixels(tmp_path, photo, monkeypatch):
    monkeypatch.setattr("phosphene.disk.surface.SHOWN", 40)
    size = (90, SEGMENT + 276)
    dream, photograph, recipe = photo(*size), photo(*size).flip(1), Recipe(colour="original")
    shown = Surface(tmp_path, recipe).finish(on_disk(tmp_path, dream, "dream"), on_disk(tmp_path, photograph), recipe)
    expected = finish(dream.float(), photograph.float(), recipe)[:, ::32, ::32]
    assert torch.equal(shown, expected)
