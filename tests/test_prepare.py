"""One rule for every size: which way a dream goes, and no picture refused for its size that a larger one is not."""

from collections import OrderedDict
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn

import phosphene
from phosphene import imagefile
from phosphene.disk.plan import strip_bytes
from phosphene.disk.run import DiskJob
from phosphene.errors import UsageError
from phosphene.job import MemoryJob, prepare, run
from phosphene.networks.network import Network
from phosphene.recipe import looks
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup.memory import PictureBytes, image_bytes
from phosphene.setup.preflight import complete
from phosphene.setup.session import load_network

QUICK = Recipe(layers=("blocks.1.1",), octaves=1, steps=1, size="full", tile=64)


@pytest.fixture(scope="module")
def network(card, randomise):
    layers = OrderedDict(early=nn.Conv2d(3, 8, 3, 2, 1), act=nn.ReLU(), deep=nn.Conv2d(8, 16, 3, 2, 1))
    return Network(replace(card(), classes=10), randomise(nn.Sequential(layers)), "none")


def forecast(network, recipe, size, allowed):
    ways = {"memory": image_bytes(size), "disk": PictureBytes(*2 * (strip_bytes(size[1]),))}
    return complete(recipe, network, None, size, ways, lambda: allowed)


def is_accepted(network, size, allowed):
    try:
        return forecast(network, Recipe(layers=("deep",)), size, allowed).needed <= allowed
    except UsageError:
        return False


@hypothesis.settings(deadline=None, max_examples=15, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    larger=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    allowed=st.floats(5.5, 10).map(lambda power: int(10**power)),
)
def test_no_picture_is_refused_for_its_size_that_a_larger_one_is_not(network, larger, shares, allowed):
    smaller = tuple(max(1, int(side * share)) for side, share in zip(larger, shares, strict=True))
    assert is_accepted(network, smaller, allowed) or not is_accepted(network, larger, allowed)


def test_six_megapixels_are_dreamed_where_24_are():
    """What `--memory 2GB` leaves once the network is there."""
    network, allowed = load_network(Eye()), 1_380_000_000
    recipe = Recipe(**looks.look("efficientnet_lite0", "creatures"))
    ways = [forecast(network, recipe, size, allowed).way for size in ((600, 400), (2000, 3000), (4000, 6000))]
    assert ways == ["memory", "memory", "disk"]


def test_the_ways_in_their_order(network):
    recipe, size = Recipe(layers=("deep",)), (2000, 3000)
    found = [forecast(network, recipe, size, allowed) for allowed in (10**10, 1_250_000_000, 65 * 10**7)]
    assert [each.way for each in found] == ["memory", "memory", "disk"]
    assert found[0].recipe.tile == "none"
    assert all(isinstance(each.recipe.tile, int) for each in found[1:])
    assert all(each.needed <= each.allowed for each in found)
    assert f"tiles of {found[1].recipe.tile} px" in found[1].notes[0]


def test_the_disk_is_taken_where_tiles_in_memory_would_be_dear():
    """What is known at cuts, and the pictures, leave so little room in memory that tiles have 256 px."""
    network, size, allowed = load_network(Eye(model="resnet50", weights="untrained")), (2000, 2000), 950_000_000
    recipe = Recipe(layers=("layer3.2",))
    found = forecast(network, recipe, size, allowed)
    in_memory = complete(recipe, network, None, size, {"memory": image_bytes(size)}, lambda: allowed)
    assert (in_memory.fits, found.fits, found.way) == (True, True, "disk")
    assert 1 < found.cost < in_memory.cost / 2


def test_a_tile_that_is_asked_for_is_not_refused(network):
    recipe, size = Recipe(layers=("deep",)), (2000, 3000)
    assert forecast(network, recipe.but(tile=64), size, 1).way == "disk"
    ways = {"memory": image_bytes(size)}
    whole = complete(recipe.but(tile="none"), network, None, size, ways, lambda: 1)
    assert "and 0 MB are allowed" in whole.notes[0]
    with pytest.raises(UsageError, match=r"the least that would do is .* kB: allow .* MB more --memory"):
        forecast(network, recipe, size, 1)


def test_python_goes_by_way_of_the_disk(tmp_path):
    picture = torch.rand(3, 100, 140, generator=torch.Generator().manual_seed(0))
    imagefile.write(tmp_path / "in.tif", picture)
    settings = QUICK.model_dump(include={"octaves", "steps", "size", "tile"}) | {"layers": "blocks.1.1"}
    expected = phosphene.dream(tmp_path / "in.tif", device="cpu", **settings)
    found = phosphene.dream(tmp_path / "in.tif", device="cpu", memory="1B", output=tmp_path / "out.tif", **settings)
    assert (tmp_path / "out.tif.phosphene").exists()
    assert torch.equal(found.look(50), expected.look(50))
    assert found._repr_png_() == expected._repr_png_()
    assert found.save(tmp_path / "other.png", bits=16).exists()
    assert found.save() == tmp_path / "out.tif"
    assert torch.equal(
        imagefile.read(tmp_path / "out.tif").image, imagefile.read(expected.save(tmp_path / "m.tif")).image
    )
    again = phosphene.replay(tmp_path / "m.tif", device="cpu", memory="1B", output=tmp_path / "again.png", bits=16)
    assert (tmp_path / "again.png.phosphene").exists()
    assert torch.equal(again.look(50), expected.look(50))
    assert again.save() == tmp_path / "again.png"
    del found, again
    names = ["again.png", "in.tif", "m.tif", "other.png", "out.tif"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_what_the_output_says_of_the_way(tmp_path):
    room = "64GB"  # however little is free just now
    assert isinstance(prepare("noise:70x90", QUICK, "cpu", room, output=tmp_path / "out.png"), MemoryJob)
    assert isinstance(prepare("noise:70x90", QUICK, "cpu", output=tmp_path / "out.dzi"), DiskJob)
    assert isinstance(prepare("noise:70x90", QUICK, "cpu", "1B", output=tmp_path / "out.webp"), MemoryJob)


def test_a_dream_without_an_output_is_saved_under_a_name(tmp_path):
    dreamed = run(prepare("noise:40x50", QUICK, "cpu"))
    with pytest.raises(UsageError, match="save it under a name"):
        dreamed.save()
    assert dreamed.save(tmp_path / "out.png").exists()


def test_reading_is_a_part_of_what_is_foretold(tmp_path):
    """A photograph that is dreamed small, but takes more to be read than there is."""
    imagefile.write(tmp_path / "large.png", torch.rand(3, 400, 600))
    job = prepare(str(tmp_path / "large.png"), QUICK.but(size=64), "cpu", "1B", output=tmp_path / "out.png")
    assert isinstance(job, DiskJob)
    assert run(job).save().exists()
