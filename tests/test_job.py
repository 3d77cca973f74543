"""Whole dreams through the job, with the real default network at small sizes."""

import math
import pickle
import threading

import numpy as np
import PIL.Image
import pytest
import torch

import phosphene
from phosphene import imagefile
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import SettingsError, UnknownNameError, UsageError
from phosphene.job import differences, prepare, run
from phosphene.recipe.provenance import from_toml
from phosphene.recipe.settings import PRESETS, Recipe
from phosphene.setup.session import describe_device, kept_network
from phosphene.setup.source import read
from phosphene.studies.study import MODES

QUICK = Recipe(layers=("blocks.2.1",), octaves=2, steps=2, size=96)

CHANGES = {
    "layers": ("blocks.3.2",),
    "classes": ("espresso:1000",),
    "terms": ("bright:1000",),
    "score": "mean",
    "balanced": True,
    "guide": "sample:chelsea",
    "guide_by": "channels",
    "octaves": 1,
    "octave_scale": 1.6,
    "detail": False,
    "steps": 3,
    "step_size": 0.02,
    "schedules": ("step_size=0.02,0.01",),
    "norm": "std",
    "jitter": 0,
    "blur": 1.0,
    "tile": 16,
    "halo": 0,
    "cuts": ("blocks.1.1:32",),
    "batch": 4,
    "model": "resnet50",
    "weights": "untrained",
    "fast": False,
    "size": 48,
    "enlarge": True,
    "mask": "sample:rocket",
    "colour": "original",
    "seed": 1,
}
# What a setting needs beside it to matter: balance needs two terms, a halo needs tiles, as a cut does.
COMPANY = {
    "balanced": {"layers": ("blocks.2.1", "blocks.4.2")},
    "guide_by": {"guide": "sample:chelsea"},
    "halo": {"tile": 16},
    "cuts": {"tile": 16},
    "batch": {"tile": 16},
    "model": {"weights": "untrained", "layers": ()},
    "fast": {"model": "resnet50", "weights": "untrained", "layers": ("layer1.0",)},
    "enlarge": {"size": 700},
}
SAME_UP_TO_ROUNDING = {"tile", "cuts", "batch", "fast"}


def bright(activations):
    return activations["blocks.2.1"].mean((1, 2, 3))


def dream(source, recipe):
    return run(prepare(source, recipe, "cpu"))


@pytest.fixture(scope="module")
def coffee():
    return phosphene.imagefile.read("sample:coffee").image


@pytest.mark.parametrize("name", [name for name in Recipe.model_fields if name != "enlarge"])
def test_every_setting_changes_the_picture(name, coffee):
    phosphene.term(bright)
    recipe = QUICK.but(**COMPANY.get(name, {}))
    before, after = dream(coffee, recipe).image, dream(coffee, recipe.but(**{name: CHANGES[name]})).image
    if name in SAME_UP_TO_ROUNDING:
        # Exact tiles, one by one, in batches or in stages, must not: what changes is the way there, which
        # test_tiling.py and test_stages.py show.
        # Another way to convolve rounds in another way.
        assert torch.allclose(before, after, atol=0.02)
        assert name != "fast" or not torch.equal(before, after)
    else:
        assert before.shape != after.shape or not torch.allclose(before, after, atol=1e-4)


def test_enlarge_is_asked_for():
    assert fitted_size((400, 600), QUICK.but(size=700)) == (400, 600)
    assert fitted_size((400, 600), QUICK.but(size=700, enlarge=True)) == (467, 700)
    assert fitted_size((400, 600), QUICK.but(size="full")) == (400, 600)
    assert fitted_size((400, 600), QUICK.but(size=300)) == (200, 300)


def test_the_walk_over_settings_is_complete():
    assert set(CHANGES) == set(Recipe.model_fields)


def test_the_same_recipe_gives_the_same_bytes(coffee):
    first, second = dream(coffee, QUICK), dream(coffee, QUICK)
    assert torch.equal(first.image, second.image)
    assert first.trace.scores == second.trace.scores


def test_a_saved_picture_replays_to_the_same_pixels(tmp_path):
    first = phosphene.dream("sample:coffee", layers="blocks.2.1", octaves=2, steps=2, size=96)
    path = first.save(tmp_path / "dream.png", bits=16)
    recipe, made = from_toml(imagefile.read_recipe(path))
    job = prepare(made.source, recipe)
    assert differences(made, job.made) == []
    assert torch.equal(run(job).image, first.image)


def test_a_replay_of_an_array_asks_for_it_again(coffee, tmp_path):
    path = phosphene.dream(coffee, layers="blocks.1.1", octaves=1, steps=1, size=64).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="was made of an array, which it does not carry: give the photograph again"):
        phosphene.replay(path)
    assert phosphene.replay(path, coffee).image.shape == (3, 43, 64)


@pytest.mark.parametrize("device", ["gpu", "meta", "hpu", ""])
def test_a_device_that_does_not_compute_is_one_sentence(device):
    with pytest.raises(SettingsError, match=r"there is no device .* here; auto, cpu, cuda and mps are known"):
        prepare("noise:8x8", QUICK, device)


def test_a_replay_says_what_differs(coffee):
    job = prepare(coffee, QUICK)
    other = job.made.model_copy(update={"source_sha256": "00", "versions": {}})
    told = differences(other, job.made)
    assert len(told) == 2
    assert "the photograph is not the one" in told[0]
    assert "other versions" in told[1]


def test_arrays_tensors_and_files_are_the_same_photograph(coffee):
    array = (coffee.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    dreams = [dream(source, QUICK).image for source in ("sample:coffee", coffee, array)]
    assert torch.equal(dreams[0], dreams[1])
    assert torch.allclose(dreams[0], dreams[2], atol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4, 5)),
        np.zeros((0, 4, 3)),
        np.full((4, 4, 3), "1"),
        torch.zeros(4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, dtype=torch.int32),
        torch.zeros(3, 4, 4, device="meta"),
        torch.zeros(3, 4, 4).to_sparse(),
    ],
)
def test_what_is_not_an_image_is_told_so(bad):
    kind = "a tensor" if isinstance(bad, torch.Tensor) else "an array"
    with pytest.raises(UsageError, match=rf"^{kind} of .* is not an image"):
        prepare(bad, QUICK)


@pytest.mark.parametrize("number", [255.0, -1.0, math.nan, math.inf])
def test_numbers_of_another_range_are_told_and_those_of_ringing_are_clamped(number):
    pixels = np.full((32, 32, 3), 0.5, np.float32)
    pixels[0, 0] = number
    for bad in (pixels, torch.from_numpy(pixels).permute(2, 0, 1)):
        with pytest.raises(UsageError, match=r"an image has numbers from .* to .*; they are 0 to 1"):
            read(bad, torch.Generator())
    if math.isfinite(number):
        with pytest.raises(UsageError, match="they are 0 to 1, or of uint8 or uint16"):
            read(np.full((32, 32, 3), int(number)), torch.Generator())
    pixels[0, 0], pixels[0, 1] = -0.1, 1.1
    found = read(pixels, torch.Generator()).image
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("mode", ["P", "LA", "CMYK", "YCbCr", "HSV"])
def test_an_image_of_pillows_is_dreamed_in_its_colours_whatever_its_mode(mode):
    red = PIL.Image.new("RGB", (8, 8), (255, 0, 0))
    found = read(red.convert(mode), torch.Generator()).image
    wanted = 76 / 255 if mode == "LA" else torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert (found - wanted).abs().max() < 0.02


def test_noise_has_the_size_that_is_asked_for_and_comes_from_the_seed():
    first = prepare("noise:40x50", QUICK).image
    assert first.shape == (3, 40, 50)
    assert torch.equal(first, prepare("noise:40x50", QUICK).image)
    assert not torch.equal(first, prepare("noise:40x50", QUICK.but(seed=1)).image)
    with pytest.raises(UsageError, match="noise:HEIGHTxWIDTH"):
        prepare("noise:40", QUICK)


def test_stopping_keeps_what_there_is_and_says_where(coffee):
    stop = threading.Event()
    job = prepare(coffee, QUICK)
    stopped = run(job, on_step=lambda step: stop.set(), stop=stop)
    assert stopped.made.unfinished == "stopped after step 1 of 2 in octave 1 of 2"
    assert stopped.image.shape == job.image.shape
    assert len(stopped.trace.rows) == 1


def test_a_finished_dream_is_not_called_stopped(coffee):
    stop = threading.Event()
    stop_at_last = lambda step: stop.set() if step.is_last else None  # noqa: E731
    assert run(prepare(coffee, QUICK), stop_at_last, stop).made.unfinished is None


def test_octaves_that_are_too_small_are_told(coffee):
    job = prepare(coffee, QUICK.but(octaves=9))
    assert len(job.notes) == 1
    assert "of 9 octaves" in job.notes[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 77)])
def test_any_size_is_dreamed(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    dreamed = dream(image, QUICK).image
    assert dreamed.shape == image.shape
    assert torch.isfinite(dreamed).all()
    assert not torch.equal(dreamed, image)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["efficientnet_lite0", "resnet50", "inception_v3", "vgg19"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_score_rises_on_every_untrained_model(model, seed):
    recipe = Recipe(model=model, weights="untrained", octaves=1, steps=5, jitter=0, norm="mean_abs", seed=seed)
    scores = dream(torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(seed)), recipe).trace.scores
    assert scores[-1] > scores[0]
    kept_network.cache_clear()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", ["mean_abs", "std", "laplacian"])
def test_the_score_rises_on_the_trained_default(seed, norm):
    recipe = Recipe(layers=("blocks.4.2",), octaves=1, steps=5, jitter=0, norm=norm, seed=seed)
    scores = dream("noise:64x64", recipe).trace.scores
    assert scores[-1] > scores[0]


def test_the_presets_dream(coffee):
    for preset in (PRESETS[name] for name in MODES):
        recipe = QUICK.but(**{**preset, "steps": 3, "size": 160})
        assert len(dream(coffee, recipe).trace.rows) == 3 * preset["octaves"]


def test_unknown_layers_channels_and_classes_are_told_before_the_first_step(coffee):
    with pytest.raises(UnknownNameError, match=r"did you mean blocks\.4\.2"):
        prepare(coffee, QUICK.but(layers=("block.4.2",)))
    with pytest.raises(SettingsError, match=r"^blocks\.4\.2 of .* has channels 0 to 111; 112 is not one"):
        prepare(coffee, QUICK.but(layers=("blocks.4.2[112]",)))
    with pytest.raises(UnknownNameError, match="did you mean espresso"):
        prepare(coffee, QUICK.but(classes=("expresso",)))
    with pytest.raises(UsageError, match="sees the whole image"):
        prepare(coffee, QUICK.but(classes=("espresso",), tile=64))
    with pytest.raises(SettingsError, match="no device 'gpu'"):
        prepare(coffee, QUICK, "gpu")


def test_a_pattern_means_each_layer_that_it_matches(coffee):
    several = prepare(coffee, QUICK.but(layers=("blocks.3.?",)))
    spelt = prepare(coffee, QUICK.but(layers=("blocks.3.0", "blocks.3.1", "blocks.3.2")))
    assert several.gradient_of(several.image, (0, 0))[0] == spelt.gradient_of(spelt.image, (0, 0))[0]


def test_a_guide_combines_with_weights_layers_and_a_mask(coffee, tmp_path):
    mask = torch.zeros(3, 64, 96)
    mask[:, :, 48:] = 1
    imagefile.write(tmp_path / "mask.png", mask)
    settings = {"guide": "sample:chelsea", "layers": ("blocks.2.1", "blocks.3.2:-0.5"), "detail": False, "octaves": 1}
    plain = dream(coffee, QUICK.but(**settings))
    masked = dream(coffee, QUICK.but(**settings, mask=str(tmp_path / "mask.png")))
    assert torch.equal(masked.image[:, :, :48], masked.photograph[:, :, :48])
    assert not torch.equal(masked.image[:, :, 48:], masked.photograph[:, :, 48:])
    unweighted = dream(coffee, QUICK.but(**{**settings, "layers": ("blocks.2.1", "blocks.3.2")}))
    assert plain.trace.scores[0] < unweighted.trace.scores[0]


def test_an_objective_is_taken_where_layers_are(coffee):
    objective = phosphene.layer("blocks.2.1") - 0.5 * phosphene.channel("blocks.3.2", 3)
    dreamed = phosphene.dream(coffee, layers=objective, octaves=1, steps=1, size=48)
    assert dreamed.recipe.layers == ("blocks.2.1", "blocks.3.2[3]:-0.5")
    assert dreamed._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(("threads", "spelt"), [(1, "1 thread"), (2, "2 threads")])
def test_threads_are_spelt(threads, spelt):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert describe_device(torch.device("cpu")).endswith(f", {spelt}")
    finally:
        torch.set_num_threads(before)


def test_errors_go_from_process_to_process():
    known = UnknownNameError("layer", "blocks.4.3", ["blocks.4.2"], "`phosphene layers` lists them.")
    again = pickle.loads(pickle.dumps(known))
    assert (type(again), str(again)) == (UnknownNameError, str(known))


@pytest.mark.parametrize("side", ["9999999", "99999999999999999999"])
def test_noise_that_is_too_large(side):
    with pytest.raises(UsageError, match=r"too large: noise may have 268 megapixels"):
        phosphene.dream(f"noise:{side}x{side}")


def test_means_without_a_network_of_ones_own(tmp_path):
    with pytest.raises(SettingsError, match="mean and std are for a module of your own"):
        phosphene.dream("sample:coffee", mean=())
    with pytest.raises(UsageError, match=r"std is \[1.0, 0.0, 1.0\]; pixels are divided by it"):
        phosphene.dream("sample:coffee", model=torch.nn.Conv2d(3, 4, 3), std=[1, 0, 1])
