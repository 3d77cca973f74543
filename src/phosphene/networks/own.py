"""Custom networks: any module that maps images [batch, channels, height, width] to whatever it likes.

The module that is given is never run, and never changed. It is copied, and the copy is frozen: evaluation mode,
float32, no gradients of weights. Where the copy can be traced, it is a network like any other. Where it cannot, because
its course depends on its input or because it has hooks, it is called as it is, and hooks of ours hear its layers.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from phosphene.errors import UsageError
from phosphene.malloc import is_out_of_memory
from phosphene.modes import undisturbed
from phosphene.networks.card import Channels, ModelCard

SIDES = (32, 64, 96, 128, 224, 256, 299, 384, 448, 512, 28)
"""Sides of square images, in px, that a network is tried with; the first that it takes is its smallest."""

CHANNELS = (3, 1, 4)
"""Channels that a network is tried with, where nobody says how many it has."""

BOOKS = vars(nn.Module()).keys() - {"_parameters", "_buffers"} | {"_compiled_call_impl"}
"""Bookkeeping attributes of `nn.Module`."""

PLAIN = bool | int | float | complex | str | bytes | range | torch.dtype | torch.device | torch.memory_format | None
"""Types whose `repr` identifies the value."""


def own_card(module: nn.Module, name: str, mean: Channels | None = None, std: Channels | None = None) -> ModelCard:
    """Return a card whose network is a frozen copy of a module, as it is now.

    The network sees `(pixel - mean) / std`, a number for each channel; without them, pixels in 0..1. One channel is the
    luma, and a fourth one is opaque. Raises `UsageError` where it cannot be copied or takes no image.
    """
    network = frozen_copy(module)
    channels, side, answer = _tried(network, name, (len(mean or std or ()),) if mean or std else CHANNELS)
    flat = isinstance(answer, Tensor) and answer.ndim == 2
    return ModelCard(
        name=name,
        source="own",
        architecture=f"{type(module).__module__}.{type(module).__qualname__}",
        mean=mean or (0.0,) * channels,
        std=std or (1.0,) * channels,
        min_side=side,
        classes=answer.shape[1] if flat else 0,
        build=lambda: network,
    )


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in evaluation mode and float32, whose weights need no gradient.

    Tensors that a module has computed are copied too, as those of `torch.nn.utils.weight_norm`, which `copy.deepcopy`
    alone does not take.
    """
    tensors = {id(tensor): _detached(tensor) for tensor in _tensors(module)}
    try:
        with undisturbed():
            return copy.deepcopy(module, tensors).eval().requires_grad_(False).float()
    except Exception as error:  # whatever its parts raise, there is no copy
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({_first_line(error)}), and it is never changed itself; "
            f"give a module that copy.deepcopy takes"
        ) from error


def checksum(module: nn.Module) -> str:
    """Return the SHA-256 of what tells a module from others: its weights, and its parts' settings, methods and hooks.

    It is the same in every process with the same Python. What the code of methods finds elsewhere, as globals and
    objects of other classes, is not looked at.
    """
    found = hashlib.sha256(repr(module).encode())
    for name, part in module.named_modules():
        settings = {key: value for key, value in sorted(vars(part).items()) if key not in BOOKS}
        hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
        for piece in _told((name, settings, hooks, _methods(type(part)))):
            found.update(piece)
    return found.hexdigest()


def unwrapped(network: Any) -> nn.Module:
    """Return the module of a network that someone compiled, ran in parallel, or bound inputs to."""
    if isinstance(network, partial) and isinstance(network.func, nn.Module):
        return Bound(unwrapped(network.func), network.args, network.keywords)
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(network.module)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"a {type(network).__name__} is not a network; one is a name, or a torch.nn.Module that takes images "
            f"[batch, channels, height, width]"
        )
    inner = dict(network.named_children()).get("_orig_mod")
    if inner is not None:
        return unwrapped(inner)
    for tensor in _tensors(network):
        if nn.parameter.is_lazy(tensor):
            raise UsageError(
                "a network with lazy layers has no weights before its first run; run it once, and give it then"
            )
        if tensor.is_meta:
            raise UsageError("a network on the meta device has no weights: load them, and give it then")
    return network


class Bound(nn.Module):
    """A network with all its inputs but the images bound, as by `functools.partial`."""

    def __init__(self, network: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.inputs, self.keywords = network, inputs, keywords

    def forward(self, images: Tensor) -> Any:
        """Call the network."""
        return self.network(*self.inputs, images, **self.keywords)


class Hooked(nn.Module):
    """A network that is called as it is. It answers with what some of its modules answered, by their names.

    A module that is called again has a number after its name, as in torchvision's feature extraction. The network's own
    answer is called `output`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, layers: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Run the network as far as the last of `layers`; all of it, and all layers, where none is named."""
        found: dict[str, Tensor] = {}
        calls: Counter[str] = Counter()

        def note(name: str, part: nn.Module, given: Any, answer: Any) -> None:
            calls[name] += 1
            called = name if calls[name] == 1 else f"{name}_{calls[name] - 1}"
            tensor = _first_tensor(answer)
            if tensor is not None and (not layers or called in layers):
                found[called] = tensor.clone()  # what follows may overwrite it
            if layers and len(found) == len(layers):
                raise _Enough

        handles = [
            part.register_forward_hook(partial(note, name or "output")) for name, part in self.network.named_modules()
        ]
        try:
            self.network(images)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return found


class _Enough(Exception):  # noqa: N818
    """Ends a network's run behind the last layer that is wanted."""


def hooked_graph(network: nn.Module, example: Tensor) -> tuple[nn.Module, fx.Graph, dict[str, fx.Node]]:
    """Return what tracing would of a network that cannot be traced: a module, its graph, and its nodes by name.

    The graph has one node for all that the network does, and one for each layer that is read by a hook.
    """
    root = nn.Module()
    root.hooked = Hooked(network)
    graph = fx.Graph()
    everything = graph.call_module("hooked", (graph.placeholder("images"),))
    with torch.no_grad():
        names = list(root.hooked(example))
    return root, graph, {name: graph.call_method("get", (everything, name)) for name in names}


def is_traced_rightly(network: nn.Module, traced: nn.Module, graph: fx.Graph, example: Tensor) -> bool:
    """Whether a graph answers as the network does, a copy from before it was traced.

    One with hooks is not asked: they may do anything.
    """
    if any(part._forward_hooks or part._forward_pre_hooks for part in network.modules()):
        return False
    try:
        with torch.no_grad():
            calls = (fx.GraphModule(traced, graph), network)
            ours, theirs = (tree_leaves(call(example.clone())) for call in calls)
        return len(ours) == len(theirs) and all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
            for a, b in zip(ours, theirs, strict=True)
            if isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point()
        )
    except Exception:  # whatever it raises: it is not what the network does, or nobody can tell
        return False


def example_of(card: ModelCard, network: nn.Module) -> Tensor:
    """Return an image that a custom network takes."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(1, len(card.mean), card.min_side, card.min_side, generator=rng)
    return images.to(device_of(network))


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's tensors are; the CPU, if it has none."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def _tried(network: nn.Module, name: str, channels: tuple[int, ...]) -> tuple[int, int, Any]:
    """Find out by trying how many channels a network has, its smallest side, and what it answers."""
    first = next((part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    refused: Exception | None = None
    with undisturbed(gradients=False):
        for count in sorted(channels, key=lambda count: count != first):
            for side in SIDES:
                try:
                    return count, side, network(torch.full((1, count, side, side), 0.5, device=device_of(network)))
                except Exception as error:  # a network's own, of any kind
                    if is_out_of_memory(error):
                        raise
                    refused = refused or error
    counts = " or ".join(map(str, channels))
    raise UsageError(
        f"{name} takes no image of {counts} channels, from {min(SIDES)} to {max(SIDES)} px on a side "
        f"({_first_line(refused)}); one with other channels or inputs goes into a module that makes them of RGB"
    )


def _methods(kind: type) -> dict[str, FunctionType]:
    """The functions of a class, and of those that it is made of; not PyTorch's, whose version is told apart from it."""
    kinds = [each for each in reversed(kind.__mro__) if each.__module__.partition(".")[0] != "torch"]
    found = {name: value for each in kinds for name, value in vars(each).items() if isinstance(value, FunctionType)}
    return dict(sorted(found.items()))


def _told(value: Any, within: tuple[int, ...] = ()) -> Iterator[bytes]:
    """Yield what tells a value from others: no addresses, no order of a set, and no value that it is within again."""
    yield type(value).__qualname__.encode()
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().to_dense().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, PLAIN):
        yield repr(value).encode()
    elif id(value) not in within:
        parts = _parts(value)
        yield str(len(parts)).encode()
        for part in parts:
            yield from _told(part, (*within, id(value)))


def _parts(value: Any) -> Sequence[Any]:
    """What a value is made of; nothing, where it is of a class that we do not look into."""
    match value:
        case list() | tuple():
            return value
        case dict():
            return list(value.items())
        case set() | frozenset():
            return sorted(value, key=repr)
        case np.ndarray():
            return value.dtype.str, value.shape, value.tobytes()
        case CodeType():
            return value.co_code, value.co_names, value.co_consts
        case FunctionType():
            held = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]  # not empty ones
            return value.__code__, value.__defaults__, value.__kwdefaults__, held
        case MethodType():
            return (value.__func__,)
        case partial():
            return value.func, value.args, value.keywords
        case type():
            return (value.__qualname__,)
    return ()


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        for values in (vars(part), part._parameters, part._buffers):
            yield from (value for value in values.values() if isinstance(value, Tensor))


def _detached(tensor: Tensor) -> Tensor:
    with undisturbed():
        copied = tensor.detach().clone()
        return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _first_tensor(answer: Any) -> Tensor | None:
    """The first tensor of at least two dimensions in whatever a module answers."""
    leaves = (
        [answer] if isinstance(answer, Tensor) else tree_leaves(vars(answer) if hasattr(answer, "__dict__") else answer)
    )
    return next((t for t in leaves if isinstance(t, Tensor) and t.ndim >= 2 and t.is_floating_point()), None)


def _first_line(error: Exception | None) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
