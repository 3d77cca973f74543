"""Weights: real files, a real server on this machine, and the networks that come out."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import skimage.data
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from phosphene.errors import UsageError, WeightsError, WeightsMismatchError, WeightsUnavailableError
from phosphene.networks import registry, statedict, weights
from phosphene.networks.card import ModelCard

SMALL = registry.card("squeezenet1_1")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> bytes:
    """A weights file of a small network, as a server would hand it out."""
    file = tmp_path_factory.mktemp("published") / "small.pth"
    network, _ = weights.load(SMALL, "untrained", 3)
    torch.save(network.state_dict(), file)
    return file.read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder for downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


class Server(ThreadingHTTPServer):
    """Answers every request with `body`, of which it only sends the first `sent` bytes."""

    status, body, sent, requests = 200, b"", None, 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.server.status == 200:
            self.wfile.write(self.server.body[: self.server.sent])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(published) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body = published
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def served(published) -> Callable[[int], ModelCard]:
    """Make the small network's card, its weights published at a port of this machine."""

    def make(port: int) -> ModelCard:
        checksum = hashlib.sha256(published).hexdigest()[:8]
        file = f"small-{checksum}.pth"
        return replace(SMALL, weights_file=file, weights_url=f"http://127.0.0.1:{port}/{file}", sha256=checksum)

    return make


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def written(state: dict, file: Path) -> str:
    torch.save(state, file)
    return str(file)


def left_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


# Downloads.


def test_pretrained_weights_are_downloaded_checked_and_loaded(server, served, cache, published, capsys):
    card = served(server.server_port)
    assert not weights.is_here(card)
    network, identity = weights.load(card)
    assert identity == f"sha256:{hashlib.sha256(published).hexdigest()}"
    assert same(network, weights.load(SMALL, "untrained", 3)[0])
    assert left_in(cache) == [str(weights.location(card))]
    assert weights.location(card) == cache / card.weights_file
    assert capsys.readouterr().out == ""


def test_the_second_time_no_server_is_needed(server, served, cache):
    card = served(server.server_port)
    file = weights.fetch(card)
    server.status = 503
    assert weights.is_here(card)
    assert weights.fetch(card) == file
    weights.load(card)
    assert server.requests == 1


def unavailable(card: ModelCard, folder: Path) -> str:
    """Fail to fetch, leave nothing behind, and say what every such failure has to say; return the reason."""
    with pytest.raises(WeightsUnavailableError) as caught:
        weights.load(card)
    message = str(caught.value)
    assert left_in(folder) == []
    assert message.startswith("the weights of squeezenet1_1 are not on this machine and the download failed, because ")
    assert f"put {card.weights_file} from {card.weights_url} into {folder}, " in message
    assert message.endswith("or use efficientnet_lite0, which needs no download, or --weights untrained.")
    assert "\n" not in message
    return message.split("because ")[1].split(": put ")[0]


def test_a_download_that_is_cut_off_leaves_nothing(server, served, cache):
    server.sent = len(server.body) // 2
    assert "cut off" in unavailable(served(server.server_port), cache)


def test_a_download_that_is_not_what_it_should_be_leaves_nothing(server, served, cache):
    server.body = server.body[:-1] + b"?"
    assert "checksum is wrong" in unavailable(served(server.server_port), cache)


def test_a_server_that_has_no_such_file_is_quoted(server, served, cache):
    server.status = 404
    assert unavailable(served(server.server_port), cache) == "the server answered 404 Not Found"


def test_a_refused_connection_is_called_so(served, cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert unavailable(served(port), cache) == "the connection was refused"


def test_a_server_that_is_not_found_suggests_that_the_machine_is_offline(served, cache):
    card = replace(served(1), weights_url=f"http://nowhere.invalid/{served(1).weights_file}")
    assert unavailable(card, cache) == "its server was not found (is this machine offline?)"


def test_a_folder_that_cannot_be_made_is_named(server, served, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsUnavailableError, match="Not a directory"):
        weights.load(served(server.server_port))


def test_a_damaged_file_in_the_cache_is_named(server, served, cache):
    card = served(server.server_port)
    file = weights.fetch(card)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match=rf"'{file}' are damaged .* with {card.sha256}\): delete the file, and"):
        weights.load(card)


def test_a_model_without_published_weights_says_so(cache):
    card = registry.card("timm/botnet50ts_256")
    assert not weights.is_here(card)
    with pytest.raises(WeightsUnavailableError, match="no pretrained weights of timm/botnet50ts_256"):
        weights.fetch(card)


# timm.


def test_timms_weights_are_found_where_we_say_that_they_belong(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card = registry.card("timm/test_resnet.r160_in1k")
    assert weights.location(card).is_relative_to(tmp_path)
    assert not weights.is_here(card)
    network, _ = weights.load(card, "untrained", 5)
    weights.location(card).parent.mkdir(parents=True)
    safetensors.torch.save_file(network.state_dict(), weights.location(card))
    assert weights.is_here(card)
    assert try_to_load_from_cache("timm/test_resnet.r160_in1k", "model.safetensors") == str(weights.location(card))
    assert same(weights.load(card)[0], network)
    weights.location(card).write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="cannot be loaded: delete the file"):
        weights.load(card)


def test_where_hugging_face_is_not_reached_timms_models_say_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    card = registry.card("timm/test_resnet.r160_in1k")
    with pytest.raises(WeightsUnavailableError, match="because the Hugging Face hub was not reached") as caught:
        weights.load(card)
    assert f"put model.safetensors from {card.weights_url} into {weights.location(card).parent}, " in str(caught.value)


# The model that needs no download.


def probabilities(photo: str) -> torch.Tensor:
    card = registry.card("efficientnet_lite0")
    network, identity = weights.load(card, "pretrained")
    assert identity == f"sha256:{card.sha256}"
    pixels = torch.from_numpy(getattr(skimage.data, photo)()).permute(2, 0, 1)[None] / 255
    pixels = nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    return network((pixels - 0.5) / 0.5)[0].softmax(0)


@pytest.mark.parametrize(("photo", "category"), [("coffee", "espresso"), ("chelsea", "Egyptian cat")])
def test_the_default_model_knows_what_it_sees(photo, category):
    seen = probabilities(photo)
    assert seen.argmax() == registry.class_index(category)
    assert seen.max() > 0.5


def test_the_packaged_file_is_also_taken_as_a_file():
    card = registry.card("efficientnet_lite0")
    assert weights.is_here(card)
    assert same(weights.load(card, str(weights.location(card)))[0], weights.load(card)[0])


# Untrained networks.


def test_loading_freezes_in_float32_and_evaluation_mode(tmp_path):
    card = registry.card("efficientnet_lite0")
    untrained, _ = weights.load(card, "untrained")
    half = {name: tensor.half() for name, tensor in untrained.state_dict().items()}
    from_file, _ = weights.load(card, written(half, tmp_path / "half.pth"))
    for loaded in (untrained, from_file):
        assert not any(module.training for module in loaded.modules())
        assert not any(p.requires_grad for p in loaded.parameters())
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("weights_of", ["untrained", "a file"])
def test_a_network_without_its_top_is_the_same_and_smaller(weights_of, tmp_path):
    card, file = registry.card("vgg19"), tmp_path / "vgg19.safetensors"
    whole, _ = weights.load(card, "untrained", 1)
    if weights_of == "a file":
        safetensors.torch.save_file(whole.state_dict(), file)
    chosen = "untrained" if weights_of == "untrained" else str(file)
    network, _ = weights.load(card, chosen, 1, top=False)
    assert same(network.features, whole.features)
    kept = sum(parameter.numel() for parameter in network.parameters())
    assert kept == sum(parameter.numel() for parameter in whole.features.parameters())


def test_untrained_weights_are_their_seeds():
    card = registry.card("timm/test_resnet")
    first, identity = weights.load(card, "untrained", 1)
    assert identity == "untrained:1"
    torch.rand(3)
    assert same(first, weights.load(card, "untrained", 1)[0])
    other, _ = weights.load(card, "untrained", 2)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_torchs_random_state_is_left_alone(tmp_path):
    card = registry.card("timm/test_resnet")
    torch.manual_seed(11)
    state = torch.get_rng_state()
    network, _ = weights.load(card, "untrained", 1)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    weights.load(card, str(tmp_path / "weights.pth"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.initial_seed() == 11


def test_untrained_activations_neither_explode_nor_vanish():
    # Without calibration Inception's reach 1e8 at this depth.
    card = registry.card("inception_v3")
    network, _ = weights.load(card, "untrained", 0)
    scales = []
    for layer in card.layers:
        network.get_submodule(layer).register_forward_hook(lambda *args: scales.append(args[-1].square().mean() ** 0.5))
    pixels = torch.from_numpy(skimage.data.coffee()[:160, :160]).permute(2, 0, 1)[None] / 255
    network((pixels - 0.5) / 0.5)
    assert len(scales) == len(card.layers)
    assert all(0.01 < scale < 1000 for scale in scales)


# Files.


def test_checkpoints_are_unwrapped_and_parallel_trainings_prefix_taken_off(tmp_path):
    network, _ = weights.load(SMALL, "untrained", 4)
    state = network.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for content in ({"state_dict": state, "epoch": 3}, {"model": parallel}, {"model": {"state_dict": state}}):
        file = written(content, tmp_path / "checkpoint.pt")
        assert same(weights.load(SMALL, file)[0], network)
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    loaded, identity = weights.load(SMALL, str(tmp_path / "weights.safetensors"))
    assert same(loaded, network)
    assert identity == f"sha256:{hashlib.sha256((tmp_path / 'weights.safetensors').read_bytes()).hexdigest()}"


def blank(card: ModelCard) -> dict[str, torch.Tensor]:
    """Tensors of the network's names and shapes, each a single zero that is repeated, so that the file is small."""
    with torch.device("meta"):
        state = registry.build(card).state_dict()
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}


def test_densenets_older_names_are_read(tmp_path):
    state = blank(registry.card("densenet121"))
    old = {name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): zero for name, zero in state.items()}
    assert old.keys() != state.keys()
    assert list(statedict.read(Path(written(old, tmp_path / "old.pth")))) == list(state)


def test_counters_may_be_missing(tmp_path):
    card = registry.card("timm/test_resnet")
    state = weights.load(card, "untrained", 1)[0].state_dict()
    file = written({n: t for n, t in state.items() if "num_batches" not in n}, tmp_path / "old.pth")
    found = weights.load(card, file)[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items() if "num_batches" not in name)


def test_a_file_for_another_number_of_classes_is_told_by_its_shape(tmp_path):
    state = weights.load(SMALL, "untrained")[0].state_dict()
    state["classifier.1.weight"] = torch.zeros(10, 512, 1, 1)
    with pytest.raises(WeightsMismatchError) as caught:
        weights.load(SMALL, written(state, tmp_path / "ten.pth"))
    assert str(caught.value) == (
        "'ten.pth' does not fit squeezenet1_1: its classifier.1.weight is [10, 512, 1, 1] "
        "where the model's is [1000, 512, 1, 1]."
    )


def test_what_is_missing_and_what_is_too_many_are_both_named(tmp_path):
    state = dict(weights.load(SMALL, "untrained")[0].state_dict())
    bias = state.pop("features.0.bias")
    state["extra"] = bias
    with pytest.raises(WeightsMismatchError) as caught:
        weights.load(SMALL, written(state, tmp_path / "other.pth"))
    assert str(caught.value) == (
        "'other.pth' does not fit squeezenet1_1: it lacks features.0.bias [64], "
        "and it has extra [64], which the model has not."
    )


def test_the_first_of_each_kind_is_named(tmp_path):
    state = blank(SMALL)
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    state["extra"] = state.pop("features.0.bias")
    with pytest.raises(WeightsMismatchError) as caught:
        weights.load(SMALL, written(state, tmp_path / "other.pth"))
    assert str(caught.value) == (
        "'other.pth' does not fit squeezenet1_1: it lacks features.0.bias [64], it has extra [64], which the model "
        "has not, and its features.0.weight is [64, 1, 3, 3] where the model's is [64, 3, 3, 3]."
    )


@pytest.mark.parametrize("fitting", ["resnet50", "efficientnet_lite0"])
def test_the_model_that_a_file_fits_is_named(fitting, tmp_path):
    if fitting == "efficientnet_lite0":
        file = str(weights.location(registry.card(fitting)))
    else:
        state = blank(registry.card(fitting))
        counters = [name for name in state if name.endswith("num_batches_tracked")]
        file = written({n: zero for n, zero in state.items() if n not in counters}, tmp_path / "weights.pth")
    with pytest.raises(WeightsMismatchError, match=rf"does not fit squeezenet1_1: it lacks .*; it fits {fitting}\.$"):
        weights.load(SMALL, file)


def test_a_file_that_fits_but_for_one_tensor_fits_nothing(tmp_path):
    state = blank(registry.card("resnet50")) | {"extra": torch.zeros(1)}
    with pytest.raises(WeightsMismatchError, match=r"which the model has not\.$"):
        weights.load(SMALL, written(state, tmp_path / "weights.pth"))


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_that_could_run_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"'harmful.pth' holds more than tensors, so that reading it could run code"):
        weights.load(SMALL, written({"a": Harmful()}, Path("harmful.pth")))
    assert not Path("harmed").exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.pt", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"hello" * 100])
def test_a_broken_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"'{tmp_path / name}' .*\.$") as caught:
        weights.load(SMALL, str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": 3},
        [1, 2],
        torch.zeros(3),
        {"state_dict": {"lr": 0.1}},
        {1: torch.zeros(3)},
        {("a",): torch.ones(1)},
    ],
)
def test_a_file_without_tensors_by_name_is_refused(content, tmp_path):
    with pytest.raises(WeightsError, match="is not a weights file: it should hold plain tensors by name"):
        weights.load(SMALL, written(content, tmp_path / "other.pth"))


def test_other_kinds_of_files_and_missing_ones_are_refused(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"ends in .safetensors, .pth or .pt, .*, and 'weights.onnx' does not"):
        weights.load(SMALL, str(tmp_path / "weights.onnx"))
    with pytest.raises(WeightsError, match=f"there is no weights file '{tmp_path / 'none.pth'}'"):
        weights.load(SMALL, str(tmp_path / "none.pth"))
    with pytest.raises(WeightsError, match=r"is a folder: give a \.safetensors"):
        weights.load(SMALL, str(tmp_path))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path, pipe):
    path = {"a device": Path("/dev/null")}.get(kind, tmp_path / "weights.pth")
    if kind == "a pipe":
        pipe("weights.pth")
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "a socket":
            listener.bind(str(path))
        with pytest.raises(WeightsError, match=f"the weights file '{path}' is {kind}: give a "):
            weights.load(SMALL, str(path))


@pytest.mark.parametrize("name", ["x" * 300 + ".pth", "caf\udce9.pth", "a\0b.pth"])
def test_what_is_no_name_is_told(name):
    with pytest.raises(UsageError, match=r"no name|too many for a name"):
        weights.load(SMALL, name)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.cfloat(),
        lambda tensor: torch.empty(tensor.shape, device="meta"),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_that_are_no_plain_numbers(tmp_path, change):
    state = dict(weights.load(SMALL, "untrained")[0].state_dict())
    name = next(iter(state))
    with pytest.raises(WeightsError, match=r"it should hold plain tensors by name, as a state_dict does\.$"):
        weights.load(SMALL, written(state | {name: change(state[name])}, tmp_path / "a.pth"))


def test_whole_numbers_are_no_weights(tmp_path):
    state = dict(weights.load(SMALL, "untrained")[0].state_dict())
    name = next(iter(state))
    with pytest.raises(WeightsMismatchError, match=rf"does not fit .*: its {name} is of int32, no weights\.$"):
        weights.load(SMALL, written(state | {name: state[name].int()}, tmp_path / "a.pth"))


@pytest.mark.parametrize("name", ["a\nb", "x" * 10_000])
def test_a_name_from_a_file_does_not_break_the_sentence(tmp_path, name):
    state = dict(weights.load(SMALL, "untrained")[0].state_dict())
    with pytest.raises(WeightsMismatchError) as caught:
        weights.load(SMALL, written(state | {name: torch.zeros(1)}, tmp_path / "a.pth"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [7, [b"\xff\xfe"], [b"\xed\xa0\x80"], [b"/"]])
def test_keras_files_with_nonsense_for_names(tmp_path, value):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as root:
        root.attrs["layer_names"] = value
    with pytest.raises(WeightsError, match=r"a\.h5' "):
        weights.load(registry.card("keras/vgg19"), str(tmp_path / "a.h5"), top=False)
