"""Memory: what is foretold against what is used, the tile that fits, and going on when an allocation fails."""

import copy
import gc
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from phosphene.dreaming.objective import Energy, Scoring
from phosphene.dreaming.stages import whole_image_gradient
from phosphene.engine.conv import FrozenConv
from phosphene.errors import SettingsError, UsageError
from phosphene.networks.cards import NAMED
from phosphene.recipe.settings import Eye, Recipe
from phosphene.setup import memory
from phosphene.setup.builders import PlannedStage, bind, gradient_fn, stages_of
from phosphene.setup.memory import (
    PictureBytes,
    gradient_bytes,
    halving_gradient,
    most_bytes,
    parse_bytes,
    spell_bytes,
)
from phosphene.setup.planning import Survey
from phosphene.setup.preflight import complete, describe_stages, longest, within
from phosphene.setup.session import load_network


@pytest.fixture(scope="module")
def bound():
    network = load_network(Eye())
    return network, Scoring((Energy(*network.resolve("blocks.2.1")),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2 * 10**9),
        ("1.5g", 1_500_000_000),
        ("800 MB", 8 * 10**8),
        ("2000000", 2 * 10**6),
        (2 * 10**6, 2 * 10**6),
    ],
)
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2XB", "0", "0GB", 0, -1])
def test_what_is_not_an_amount(text):
    with pytest.raises(SettingsError, match=r"one is spelt 2GB, 1\.5G or 800M"):
        parse_bytes(text)


def test_amounts_are_spelt():
    assert (spell_bytes(1_540_000_000), spell_bytes(31_000_000), spell_bytes(-5)) == ("1.5 GB", "31 MB", "0 MB")


def test_the_cheapest_stages_that_fit(bound):
    network, scoring = bound
    survey = Survey(network, scoring, Recipe(), (3000, 2000))
    choices = [survey.best(room) for room in (10**8, 3 * 10**8, 10**9, 10**10)]
    costs = [choice.cost for choice in choices]
    assert costs == sorted(costs, reverse=True)
    assert choices[-1].stages == (PlannedStage(None, None),)
    assert costs[-1] == pytest.approx(1)
    assert costs[0] > 1
    for choice, room in zip(choices, (10**8, 3 * 10**8, 10**9, 10**10), strict=True):
        assert choice.needed <= room
        asked = Survey(network, scoring, choice.of(Recipe()), (3000, 2000)).asked()
        assert (asked.stages, asked.needed) == (choice.stages, choice.needed)


def batches(stages, size):
    """How many batches of tiles each stage has."""
    found = []
    for stage in stages:
        found.append(len(stage.batches(size)))
        size = stage.sizes(size).get(stage.cut)
    return found


def test_workers_get_tiles_enough_to_share(bound):
    network, scoring = bound
    size, room = (6000, 4000), 10**9
    plans = [Survey(network, scoring, Recipe(), size, workers).best(room, False) for workers in (1, 16)]
    alone, shared = (batches(stages_of(network, scoring, plan.of(Recipe()))(size), size) for plan in plans)
    assert min(alone) < 16 <= min(shared)
    together = Survey(network, scoring, Recipe(batch=4), size, 16).best(room, False)
    assert min(batches(stages_of(network, scoring, together.of(Recipe(batch=4)))(size), size)) >= 16


def test_too_little_memory_names_the_least(bound):
    network, scoring = bound
    survey = Survey(network, scoring, Recipe(), (3000, 2000))
    with pytest.raises(UsageError, match=r"the least that would do is (\d+) MB: allow .* more --memory") as caught:
        survey.best(10_000)
    least = int(re.search(r"is (\d+) MB", str(caught.value))[1]) * 10**6
    assert survey.best(least + 10**6).needed <= least + 10**6


def test_stages_are_said():
    said = describe_stages(Recipe(tile=512, cuts=("blocks.1.1:1024", "blocks.3.2")))
    assert (
        said == "in 3 stages (in tiles of 512 px, from blocks.1.1 on in tiles of 1024 px, from blocks.3.2 on at once)"
    )
    assert describe_stages(Recipe(tile=512)) == "in tiles of 512 px"
    assert describe_stages(Recipe(tile="none")) == ""


def test_smaller_tiles_in_each_stage():
    recipe = Recipe(tile=512, cuts=("blocks.1.1:1024", "blocks.3.2"))
    assert longest(recipe, (3000, 2000)) == 3000
    smaller = within(recipe, 768)
    assert (smaller.tile, smaller.cuts) == (512, ("blocks.1.1:768", "blocks.3.2"))
    assert within(Recipe(tile="none"), 300).tile == 300


@pytest.fixture
def kept(monkeypatch):
    """What the process was told to keep no longer: these tests' own is to stay as it is."""
    told = []
    monkeypatch.setattr(memory, "keep_nothing", lambda: told.append(None))
    return told


def test_memory_that_runs_out_halves_the_tile(photo, caplog, kept):
    image, tried = photo(9, 9), []

    def build(side):
        def gradient_of(image, shift):
            tried.append(side)
            if side > 100:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return 1.0, image

        return gradient_of

    gradient_of = halving_gradient(build, build(512), 512)
    assert gradient_of(image, (0, 0))[0] == 1.0
    assert gradient_of(image, (0, 0))[0] == 1.0
    assert tried == [512, 256, 128, 64, 64]
    assert len(kept) == 3
    assert "tiles of 64 px" in caplog.text


@pytest.mark.usefixtures("kept")
def test_memory_that_runs_out_where_there_are_no_tiles(photo):
    """Of a class, say: what is told is that memory ran out, and not to leave out a tile that nobody gave."""

    def whole(image, shift):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    def build(side):
        raise UsageError("it sees whole activations, so no tile has its exact gradient")

    with pytest.raises(MemoryError, match="can't allocate memory"):
        halving_gradient(build, whole, 512)(photo(9, 9), (0, 0))


@pytest.mark.usefixtures("kept")
def test_a_thread_that_memory_ran_out_in_is_not_used_again(photo):
    """As oneDNN has it: where there was no memory for the code of a convolution, there never is any again."""
    image, spoilt = photo(9, 9), set()

    def build(side):
        def gradient_of(image, shift):
            if side > 100 or threading.current_thread() in spoilt:
                spoilt.add(threading.current_thread())
                raise RuntimeError("could not create a primitive")
            return 1.0, image

        return gradient_of

    gradient_of = halving_gradient(build, build(512), 512)
    assert gradient_of(image, (0, 0))[0] == gradient_of(image, (0, 0))[0] == 1.0
    assert len(spoilt) == 3


INTERRUPTED = """
import signal, threading, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell leaves out behind an &
from phosphene.setup.memory import halving_gradient
begun, ended = threading.Event(), threading.Event()
def build(side):
    def gradient_of(image, shift):
        if side > 300:
            raise MemoryError
        begun.set()
        ended.wait(20)
        ended.set()
    return gradient_of
def interrupt():
    begun.wait()
    time.sleep(0.5)  # until the gradient is waited for
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    halving_gradient(build, build(512), 512)(torch.zeros(3, 9, 9), (0, 0))
except KeyboardInterrupt:
    print("after it" if ended.is_set() else "at once")
"""


def test_an_interruption_does_not_wait_for_a_gradient():
    assert subprocess.check_output([sys.executable, "-c", INTERRUPTED], text=True).strip() == "at once"


def test_other_errors_pass(photo):
    def broken(image, shift):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        halving_gradient(lambda side: broken, broken, 512)(photo(9, 9), (0, 0))


STARVED = """
import resource, sys, torch
torch.set_num_threads(1)
from phosphene.job import prepare, run
from phosphene.setup.memory import in_use
from phosphene.recipe.settings import Eye, Recipe
RECIPE = Recipe(layers=("blocks.2.1",), octaves=1, steps=1, size="full", tile="none", norm="std")
job = prepare("noise:1500x1500", RECIPE, "cpu")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
if sys.argv[1] == "starved":
    resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
torch.save(run(job).image, sys.argv[2])
"""


@pytest.mark.slow
def test_a_real_allocation_that_fails(tmp_path):
    """The kernel refuses the whole image's memory; the dream goes on in tiles, and is the same up to rounding."""
    assert resource.RLIMIT_AS
    pictures, errors = [], []
    for kind in ("starved", "fed"):
        path = Path(tmp_path / f"{kind}.pt")
        done = subprocess.run(
            [sys.executable, "-c", STARVED, kind, str(path)], capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        pictures.append(torch.load(path))
        errors.append(done.stderr)
    assert "going on with tiles of" in errors[0]
    assert "memory ran out" not in errors[1]
    assert (pictures[0] - pictures[1]).square().mean().sqrt() < 1e-4


def test_a_convolution_takes_what_it_reads_and_writes_once_more():
    with FakeTensorMode(), memory.LiveBytes() as live:
        x, weight = torch.empty(1, 4, 10, 10), torch.empty(8, 4, 1, 1)
        y = torch.nn.functional.conv2d(x, weight)
    assert live.peak == 2 * (x.nbytes + y.nbytes) + weight.nbytes


PEAK = """
import sys, torch
from phosphene.malloc import begin_again, give_back, keep_freed
begin_again()
keep_freed()
torch.set_num_threads(1)
from phosphene.setup.session import load_network
from phosphene.setup.builders import gradient_fn
from phosphene.setup.planning import Survey
from phosphene.dreaming.objective import Energy, Scoring
from phosphene.recipe.settings import Eye, Recipe
network = load_network(Eye(model=sys.argv[1], weights=sys.argv[2]))
scoring = Scoring((Energy(*network.resolve(sys.argv[3])),))
recipe = Recipe(tile=512, cuts=tuple(sys.argv[4:]))
survey = Survey(network, scoring, recipe, (1100, 1100))
foretold = survey.asked().needed - survey.weights  # which are there before
gradient_of = gradient_fn(network, scoring, recipe)
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
image = torch.rand(3, 1100, 1100)
gradient_of(torch.rand(3, 512, 512), (0, 0))
give_back()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
gradient_of(image, (0, 0))
print(foretold, status("VmHWM") - before - 12 * 1100 * 1100)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "weights", "layer", "cuts"),
    [
        ("efficientnet_lite0", "pretrained", "blocks.2.1", ()),
        ("efficientnet_lite0", "pretrained", "blocks.4.2", ("blocks.1.1",)),
        ("inception_v3", "untrained", "Mixed_6c", ("maxpool2",)),
    ],
)
def test_the_foretold_peak_is_near(model, weights, layer, cuts):
    done = subprocess.run([sys.executable, "-c", PEAK, model, weights, layer, *cuts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    foretold, measured = map(int, done.stdout.split())
    assert 2 / 3 < foretold / measured < 3 / 2


FORETOLD = """
import re, sys, torch
from phosphene.malloc import begin_again, keep_freed
begin_again()
torch.set_num_threads(1)
from phosphene.job import prepare, run
from phosphene.recipe.settings import Recipe
keep_freed()
job = prepare("noise:2000x2000", Recipe(octaves=1, steps=2, size="full"), "cpu", sys.argv[1], output=sys.argv[2])
said, unit = re.search(r"([0-9.]+) ([GM]B) of memory", job.notes[0]).groups()
run(job).save()
peak = re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]
print(float(said) * {"GB": 1e9, "MB": 1e6}[unit], int(peak) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("memory", "output"), [("2GB", "out.png"), ("1.5GB", "out.dzi")])
def test_what_is_said_bounds_the_peak_of_the_process(tmp_path, memory, output):
    """In memory and by way of the disk, with Python, PyTorch, decoding and encoding in it."""
    command = [sys.executable, "-c", FORETOLD, memory, str(tmp_path / output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    foretold, measured = map(float, done.stdout.split())
    assert 0.6 * foretold < measured <= 1.03 * foretold  # which is rounded
    assert measured <= parse_bytes(memory)


WEIGHTS = """
import gc, sys, torch
from phosphene.setup.session import load_network
from phosphene.recipe.settings import Eye
network = load_network(Eye(model=sys.argv[1], weights="untrained"))
def held():
    gc.collect()
    tensors = [value for value in gc.get_objects() if isinstance(value, torch.Tensor)]
    return sum({value.data_ptr(): value.untyped_storage().nbytes() for value in tensors}.values())
before = held()
part = network.part(network.resolve(sys.argv[2]))
print(part.nbytes, held() - before)
"""


@pytest.mark.parametrize(("model", "layer"), [("efficientnet_lite0", "blocks.5.1"), ("resnet50", "layer2.3")])
def test_the_bytes_of_laid_out_weights(model, layer):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WEIGHTS, model, layer], capture_output=True, text=True)
    counted, held = map(int, done.stdout.split())
    assert counted == pytest.approx(held, rel=0.1)


def test_what_was_looked_at_is_not_kept(monkeypatch):
    """Neither the whole network when its parts are looked at, nor these behind it: weights would be there twice."""
    network = load_network(Eye(model="resnet50", weights="untrained"))
    network._features.clear()
    gc.collect()  # of other tests
    alive = [_frozen_convolutions()]
    begin = Survey.begin
    monkeypatch.setattr(Survey, "begin", lambda survey: (alive.append(_frozen_convolutions()), begin(survey)))
    complete(
        Recipe(layers=("layer3.2",)),
        network,
        None,
        (2000, 2000),
        {"memory": PictureBytes(10**8, 10**8)},
        lambda: 9 * 10**8,
    )
    alive.append(_frozen_convolutions())
    assert alive == [alive[0]] * 3
    assert not network._features


def _frozen_convolutions() -> int:
    return sum(type(each) is FrozenConv for each in gc.get_objects())


def test_what_is_elsewhere_than_on_the_processor_is_foretold_there(bound):
    """On `meta`, as there is no GPU here: else the image would be on the processor, and the weights not."""
    network, scoring = bound
    part = copy.deepcopy(network.part(scoring.layers, is_frozen=False))  # its weights are the network's
    here = gradient_bytes(part, scoring, (64, 64))
    assert gradient_bytes(part.to("meta"), scoring, (64, 64)) == pytest.approx(here, rel=0.2)


def test_tiles_may_be_looked_at_together(bound, photo):
    network, scoring = bound
    image = photo(150, 131, torch.float32)
    _, whole = whole_image_gradient(network.features(scoring.layers), scoring)(image, (5, -9))
    for batch in (1, 3, 100):
        tiles = Recipe(tile=32, batch=batch)
        (stage,) = stages_of(network, scoring, tiles)((150, 131))
        assert max(map(len, stage.batches((150, 131)))) <= batch
        _, tiled = gradient_fn(network, scoring, tiles)(image, (5, -9))
        assert (tiled - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("card", NAMED, ids=lambda card: card.name)
def test_no_step_of_our_networks_takes_more_than_the_most(card):
    """With each layer that we suggest, with all of them, with the last layer, and with all that there are."""
    network = load_network(Eye(model=card.name, weights="untrained"))
    suggested = tuple(node for layer in card.layers for node in network.resolve(layer))
    for nodes in ((network.logits,), *((node,) for node in suggested), suggested, tuple(network.nodes)):
        scoring = Scoring(tuple(Energy(node) for node in nodes))
        for side in (192, 1024):
            needed = gradient_bytes(network.part(nodes), scoring, (side, side))
            assert needed < most_bytes((side, side), len(nodes))


def test_a_class_behind_a_cut_goes_on_in_smaller_tiles(photo):
    """What sees all of the picture is looked at at once, whatever the tiles in front of it."""
    network, recipe = load_network(Eye()), Recipe(classes=("tabby",), tile=256, cuts=("blocks.2.1.add",))
    scoring, image = bind(recipe, network, None), photo(150, 200).float()
    first, smaller = (gradient_fn(network, scoring, each)(image, (0, 0)) for each in (recipe, within(recipe, 64)))
    assert within(recipe, 64).cuts == recipe.cuts
    torch.testing.assert_close(smaller[1], first[1], rtol=1e-3, atol=1e-5 * first[1].abs().max().item())


def test_a_step_takes_the_network_beside_what_is_held_or_the_norm_after_it():
    pictures = PictureBytes(held=6, step=12)
    assert [pictures.with_network(needed) for needed in (0, 6, 7)] == [12, 12, 13]
