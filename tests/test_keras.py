"""Keras's networks against Keras itself: random weights, statistics and biases, written and read as its files are."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread

import h5py
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from phosphene.errors import WeightsError, WeightsMismatchError, WeightsUnavailableError
from phosphene.networks import hdf5, kerasfile, registry, weights
from phosphene.networks.card import ModelCard
from phosphene.networks.cards import keras_resnet50
from phosphene.networks.network import Network
from phosphene.recipe.settings import Recipe
from phosphene.setup.session import needs_top
from phosphene.types import Image

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")

# Keras's, not ours: its variables know no `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LAYERS = {
    "inception_v3": ("mixed0", "mixed3", "mixed5", "mixed8", "mixed10"),
    "resnet50": ("conv1_relu", "pool1_pool", "conv2_block3_out", "conv3_block4_out", "conv5_block3_out"),
    "vgg19": ("block1_conv1", "block3_conv4", "block4_conv2", "block5_conv2", "block5_pool"),
}
MAKERS = {"inception_v3": "InceptionV3", "resnet50": "ResNet50", "vgg19": "VGG19"}
SIZES = ((111, 131), (139, 108))
CLOSE = 1e-5
"""Of the largest value."""


@pytest.fixture(scope="module", params=list(LAYERS))
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(architecture) -> "keras.Model":
    return made(architecture)


def made(architecture: str) -> "keras.Model":
    """Keras's network without its top, in float64, with all of its arrays at random.

    Some variances are so small that an epsilon counts.
    """
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, MAKERS[architecture])(weights=None, include_top=False)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([as_float32(array) for array in statistics(layer, rng)])
        elif layer.weights:
            kernel, *biases = layer.get_weights()
            layer.set_weights([as_float32(kernel), *(as_float32(0.1 * rng.normal(size=b.shape)) for b in biases)])
    return model


def statistics(norm: "keras.layers.BatchNormalization", rng: np.random.Generator) -> list[np.ndarray]:
    """Arrays of a norm that leave the size of what it normalises about as it is."""
    shape = norm.moving_variance.shape
    variance = 10 ** rng.uniform(-4.5, 0, shape) if norm.scale else rng.uniform(0.5, 1.5, shape)
    deviation = np.sqrt(variance)
    arrays = {
        "gamma": deviation * rng.uniform(0.5, 1.5, shape),
        "beta": 0.3 * deviation * rng.normal(size=shape),
        "moving_mean": 0.3 * deviation * rng.normal(size=shape),
        "moving_variance": variance,
    }
    return [arrays[weight.name] for weight in norm.weights]


def as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)


def save(model: "keras.Model", file: Path) -> Path:
    """Write a model's arrays as the published files have them, by Keras's own writer of that layout."""
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(file, "w") as root:
        legacy_h5_format.save_weights_to_hdf5_group(root, model)
    return file


@pytest.fixture(scope="module")
def file(architecture, theirs, tmp_path_factory) -> Iterator[Path]:
    written = save(theirs, tmp_path_factory.mktemp(architecture) / f"{architecture}.h5")
    yield written
    written.unlink()


@pytest.fixture(scope="module")
def module(architecture, file) -> nn.Module:
    return weights.load(registry.card(f"keras/{architecture}"), str(file), top=False)[0]


def picture(size: tuple[int, int], seed: int = 1) -> Image:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, *size))) / 255


def answers(model: "keras.Model", architecture: str, image: Image) -> tuple[dict[str, Tensor], Tensor]:
    """What Keras makes of an image, and the gradient of the mean square of its third layer."""
    names = LAYERS[architecture]
    features = keras.Model(model.input, [model.get_layer(name).output for name in names])
    leaf = image.double().requires_grad_(True)
    values = features(preprocessed(architecture, 255 * leaf.permute(1, 2, 0)[None]), training=False)
    (gradient,) = torch.autograd.grad(values[2].square().mean(), leaf)
    return {name: value.detach().permute(0, 3, 1, 2) for name, value in zip(names, values, strict=True)}, gradient


def preprocessed(architecture: str, image: Tensor) -> Tensor:
    """As `preprocess_input`, which takes no tensor that wants a gradient; a test compares the two."""
    if architecture == "inception_v3":
        return image / 127.5 - 1
    return image.flip(-1) - torch.tensor([103.939, 116.779, 123.68])


def ours(module: nn.Module, architecture: str, image: Image) -> tuple[dict[str, Tensor], Tensor]:
    """The same of our network: values in float32, by our own kernels, and the gradient in float64.

    In float32 a gradient goes another way where two values of a maximum pool are alike but for rounding.
    """
    third = LAYERS[architecture][2]
    exact = Network(registry.card(f"keras/{architecture}"), deepcopy(module).double(), "test")
    (node,), leaf = exact.resolve(third), image.double()[None].requires_grad_(True)
    (gradient,) = torch.autograd.grad(exact.features([node])(leaf)[node].square().mean(), leaf)
    return values_of(module, architecture, image), gradient[0]


def values_of(module: nn.Module, architecture: str, image: Image) -> dict[str, Tensor]:
    network = Network(registry.card(f"keras/{architecture}"), module, "test")
    nodes = {name: network.resolve(name)[0] for name in LAYERS[architecture]}
    with torch.no_grad():
        values = network.features(nodes.values())(image.float()[None])
    return {name: values[node] for name, node in nodes.items()}


def off(found: tuple[dict[str, Tensor], Tensor], wanted: tuple[dict[str, Tensor], Tensor]) -> float:
    """The largest difference, over the largest value of its layer, or of the gradient."""
    pairs = [(found[1], wanted[1]), *((found[0][name], value) for name, value in wanted[0].items())]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_five_layers_and_the_pixels_gradient_are_kerass(architecture, theirs, module, size):
    """Of one picture of three: Keras normalises in float32, so a unit at a kink may be rounded to either side of it."""
    pictures = (picture(size, seed) for seed in (1, 2, 3))
    assert any(
        off(ours(module, architecture, image), answers(theirs, architecture, image)) < CLOSE for image in pictures
    )


def test_pixels_are_preprocessed_as_keras_does(architecture):
    image = 255 * picture((7, 9)).permute(1, 2, 0)[None]
    wanted = getattr(keras.applications, architecture).preprocess_input(image.numpy().copy())
    np.testing.assert_allclose(preprocessed(architecture, image), wanted, atol=1e-4)


# Each way in which Keras differs from torchvision, undone: then the test above fails.


def with_torchvisions_pools(module: nn.Module) -> nn.Module:
    plain = torchvision.models.inception_v3(aux_logits=False, transform_input=False, init_weights=False)
    plain.fc = nn.Identity()
    plain.load_state_dict(module.state_dict())
    return plain.eval().requires_grad_(False)


def with_torchvisions_strides(module: nn.Module) -> nn.Module:
    for stage in (module.layer2, module.layer3, module.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (1, 1), (2, 2)
    return module


def with_torchvisions_epsilon(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 1e-5
    return module


def reading_bgr(module: nn.Module) -> nn.Module:
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    first.weight.data = first.weight.data.flip(1)
    return module


TRAPS = [
    ("inception_v3", with_torchvisions_pools),
    ("resnet50", with_torchvisions_strides),
    ("resnet50", with_torchvisions_epsilon),
    ("resnet50", reading_bgr),
    ("vgg19", reading_bgr),
]


@pytest.mark.slow
def test_the_traps_are_traps(architecture, theirs, module):
    image = picture(SIZES[0])
    wanted = answers(theirs, architecture, image)
    for trap in [trap for fallen, trap in TRAPS if fallen == architecture]:
        assert off((values_of(trap(deepcopy(module)), architecture, image), wanted[1]), wanted) > 2 * CLOSE, trap


# Downloads: the files' names, addresses and layout, from a server on this machine.


def blank(file: Path, layers: dict[str, dict[str, tuple[int, ...]]], attribute: str = "layer_names") -> Path:
    """Write a file of zeros in the published layout, which takes no room: by layer, its arrays' names and shapes."""
    with h5py.File(file, "w") as root:
        root.attrs[attribute] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{array}:0".encode() for array in arrays]
            for array, shape in arrays.items():
                group.create_dataset(f"{name}/{array}:0", shape, "f4")
    return file


def resnet_layers(top: bool) -> dict[str, dict[str, tuple[int, ...]]]:
    model = keras.applications.ResNet50(weights=None, include_top=top, **({} if top else {"input_shape": (64, 64, 3)}))
    return {layer.name: {w.name: tuple(w.shape) for w in layer.weights} for layer in model.layers}


class Server(ThreadingHTTPServer):
    """Hands out the files of a folder by the last part of their address, and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.asked = folder, []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = PurePosixPath(self.path).name
        self.server.asked.append(name)
        body = (self.server.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    with Server(folder) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with served(tmp_path / "published") as running:
        yield running


@pytest.fixture
def published(server, tmp_path, monkeypatch) -> ModelCard:
    """ResNet50's card, with both of its files at that server, one known by SHA-256 and MD5, the other by MD5 alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return replace(
        at(server, keras_resnet50.CARD, resnet_layers(top=True)),
        without_top=replace(at(server, keras_resnet50.CARD.without_top, resnet_layers(top=False)), sha256=""),
    )


def at(server: Server, card: ModelCard, layers: dict) -> ModelCard:
    body = blank(server.folder / card.weights_file, layers).read_bytes()
    return replace(
        card,
        weights_url=f"http://127.0.0.1:{server.server_port}/{card.weights_file}",
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body).hexdigest(),
    )


def test_the_file_without_the_top_is_fetched_where_no_class_is_asked_for(server, published):
    assert not weights.is_here(published)
    network, identity = weights.load(published, top=False)
    small = server.folder / published.without_top.weights_file
    assert server.asked == [small.name]
    assert identity == f"sha256:{hashlib.sha256(small.read_bytes()).hexdigest()}"
    assert isinstance(network.fc, nn.Identity)
    assert weights.is_here(published)
    network, _ = weights.load(published, top=True)
    assert server.asked == [small.name, published.weights_file]
    assert network.fc.weight.shape == (1000, 2048)
    weights.load(published, top=False)
    assert len(server.asked) == 2


def test_the_whole_file_will_do_where_it_is_here(server, published):
    weights.fetch(published, top=True)
    network, _ = weights.load(published, top=False)
    assert server.asked == [published.weights_file]
    assert isinstance(network.fc, nn.Identity)


def test_a_file_of_another_md5_is_not_kept(server, published):
    file = server.folder / published.without_top.weights_file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsUnavailableError, match=r"altered .its checksum is wrong: md5 begins with"):
        weights.fetch(published)
    assert not weights.is_here(published)
    assert list(weights.location(published).parent.iterdir()) == []


@pytest.mark.parametrize("publisher", ["keras/", ""])
@pytest.mark.parametrize("name", list(LAYERS))
def test_a_recipe_needs_the_top_for_its_classes_and_its_layers(name, publisher):
    recipe = Recipe(model=f"{publisher}{name}", layers=LAYERS[name][:2])
    assert not needs_top(recipe)
    assert needs_top(recipe.but(classes=("tabby",)))
    assert needs_top(recipe.but(terms=("mine",)))  # which may look at logits
    assert needs_top(recipe.but(layers=("classifier.1" if name == "vgg19" else "fc",)))
    assert needs_top(Recipe())  # whose card knows no top


def test_a_class_needs_the_top_of_a_file_at_hand(tmp_path):
    file = blank(tmp_path / "mine.h5", resnet_layers(top=False))
    with pytest.raises(WeightsMismatchError, match=r"'mine.h5' is keras/resnet50 without its top"):
        weights.load(keras_resnet50.CARD, str(file))


# Files.


def test_vgg19s_first_dense_layer_reads_the_same_features(tmp_path):
    shapes = {"block1_conv1": {}, "fc1": {"kernel": (7 * 7 * 512, 3), "bias": (3,)}}
    inner = registry.skeleton(registry.card("keras/vgg19")).features
    convolutions = iter([part for part in inner if isinstance(part, nn.Conv2d)])
    for block, number in enumerate((2, 2, 4, 4, 4), start=1):
        for index, convolution in zip(range(1, number + 1), convolutions, strict=False):
            out, into, rows, columns = convolution.weight.shape
            shapes[f"block{block}_conv{index}"] = {"kernel": (rows, columns, into, out), "bias": (out,)}
    small = {"kernel": (3, 3), "bias": (3,)}
    file = blank(tmp_path / "vgg.h5", shapes | {"fc2": small, "predictions": small})
    features, kernel = (
        np.random.default_rng(0).normal(size=(7, 7, 512)),
        np.random.default_rng(1).normal(size=(25088, 3)),
    )
    with h5py.File(file, "a") as root:
        root["fc1/fc1/kernel:0"][...] = kernel
    ours = (
        kerasfile.read(file, "vgg19")["classifier.0.weight"].double()
        @ torch.from_numpy(features).permute(2, 0, 1).flatten()
    )
    np.testing.assert_allclose(ours.numpy(), features.reshape(-1) @ kernel, rtol=1e-5)


def test_inceptionv3s_numbers_may_start_anywhere(tmp_path):
    model = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(96, 96, 3))
    layers = {layer.name: {w.name: tuple(w.shape) for w in layer.weights} for layer in model.layers}
    numbers = sorted(int(name.rpartition("_")[2] or 0) for name in layers if name.startswith("conv2d_"))
    assert numbers[-1] > 94  # another network was made before
    state = kerasfile.read(blank(tmp_path / "late.h5", layers), "inception_v3")
    assert state["Mixed_6e.branch7x7dbl_3.conv.weight"].shape == (192, 192, 1, 7)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv1": {}, "res2a_branch2a": {"kernel": (1, 1, 64, 64)}}, "is the ResNet50 of 2015 to 2019"),
        ({"convolution2d_1": {"W": (3, 3, 3, 32)}}, "is of Keras 1"),
        ({}, "has no list of layers"),
    ],
)
def test_old_layouts_are_refused_by_name(tmp_path, layers, message):
    file = blank(tmp_path / "old.h5", layers)
    with pytest.raises(WeightsError, match=message):
        weights.load(keras_resnet50.CARD, str(file))


def test_kerass_new_layout_is_refused_by_name(tmp_path):
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    model.save_weights(tmp_path / "new.weights.h5")
    with pytest.raises(WeightsError, match=r"is a \.weights\.h5 of Keras 3"):
        weights.load(keras_resnet50.CARD, str(tmp_path / "new.weights.h5"))


def test_long_lists_of_names_are_read_from_their_parts(tmp_path):
    layers = resnet_layers(top=False)
    file = blank(tmp_path / "parts.h5", layers)
    with h5py.File(file, "a") as root:
        for group, kind in ((root, "layer_names"), (root["conv1_conv"], "weight_names")):
            names = list(group.attrs[kind])
            wanted = hdf5._listed(group, kind)
            del group.attrs[kind]
            for part in range(12):
                group.attrs[f"{kind}{part}"] = names[part * len(names) // 12 : (part + 1) * len(names) // 12]
            assert hdf5._listed(group, kind) == wanted
    assert (
        kerasfile.read(file, "resnet50").keys() == kerasfile.read(blank(tmp_path / "one.h5", layers), "resnet50").keys()
    )


def test_files_that_are_something_else_are_told(tmp_path):
    layers = resnet_layers(top=False)
    other = blank(tmp_path / "resnet.h5", layers)
    with pytest.raises(
        WeightsMismatchError, match=r"'resnet.h5' does not fit keras/vgg19: its layers are conv1_conv, "
    ):
        weights.load(registry.card("keras/vgg19"), str(other))
    with pytest.raises(WeightsError, match=r"or in .h5 for a keras/ model, and 'resnet.h5' does not"):
        weights.load(registry.card("resnet50"), str(other))
    (tmp_path / "not.h5").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is not a Keras weights file, or is damaged"):
        weights.load(keras_resnet50.CARD, str(tmp_path / "not.h5"))
    (tmp_path / "mine.pth").touch()
    with pytest.raises(WeightsError, match=r"are a file of Keras's, \.h5, and 'mine.pth' is not"):
        weights.load(keras_resnet50.CARD, str(tmp_path / "mine.pth"))
    wide = layers | {"conv1_conv": {"kernel": (3, 3, 3, 64), "bias": (64,)}}
    with pytest.raises(WeightsMismatchError, match=r"its conv1.weight is \[64, 3, 3, 3\] where the model's is"):
        weights.load(keras_resnet50.CARD, str(blank(tmp_path / "wide.h5", wide)), top=False)


def test_a_file_in_which_hdf5_turns_without_end_is_told(tmp_path, monkeypatch):
    """A name in its heap that is zeroed: the library takes what follows for objects of no size, one after the other."""
    file = blank(tmp_path / "turning.h5", {"block1_conv1": {"kernel": (3, 3, 3, 64), "bias": (64,)}})
    content = bytearray(file.read_bytes())
    name = content.index(b"block1_conv1/kernel:0", content.index(b"GCOL"))
    content[name : name + 40] = bytes(40)
    file.write_bytes(content)
    monkeypatch.setattr(hdf5, "SECONDS", 3)
    with pytest.raises(WeightsError, match=r"turning\.h5' could not be read within 3 seconds, and is damaged"):
        weights.load(registry.card("keras/vgg19"), str(file))


def test_a_file_that_breaks_the_library_is_told(tmp_path, monkeypatch):
    file, python = blank(tmp_path / "whole.h5", {"conv1_conv": {"kernel": (7, 7, 3, 64)}}), tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")  # in place of a library that a file makes crash
    python.chmod(0o755)
    monkeypatch.setattr(hdf5.sys, "executable", str(python))
    with pytest.raises(WeightsError, match=r"whole\.h5' breaks the library that reads it, and is damaged"):
        weights.load(registry.card("keras/resnet50"), str(file))
