"""What several test files share: images, a network to solve by hand, and a small module to trace."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from phosphene.networks.card import ModelCard
from phosphene.networks.network import Network

CHROMIUM = shutil.which("chromium")
MEAN = (0.4, 0.5, 0.6)
STD = (0.25, 0.5, 0.3)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


GROWN = 5 * 10**8
"""Bytes by which this process may grow before what is no longer used is looked for."""

_held = psutil.Process().memory_info().rss


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Free networks that refer to themselves: by itself Python looks for them too rarely in so large a process."""
    global _held
    yield
    if psutil.Process().memory_info().rss > _held + GROWN:
        gc.collect()
        _held = psutil.Process().memory_info().rss


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium, for one file of tests: while Playwright runs, this thread is in its event loop."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here; .ci/run installs one")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a pipe that nobody may read: who does is given a few bytes, so that the test fails and does not wait."""
    made, read, over = [], list[Path](), Event()

    def make(name: str) -> Path:
        path = tmp_path / name
        os.mkfifo(path)
        made.append((path, Thread(target=feed, args=(path,), daemon=True)))
        made[-1][1].start()
        return path

    def feed(path: Path) -> None:
        while not over.wait(0.2):
            path.write_bytes(b"no file")
            read.extend([] if over.is_set() else [path])

    yield make
    over.set()
    for path, writer in made:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)
    assert not read


@pytest.fixture(scope="session")
def photo() -> Callable[..., Tensor]:
    """Make a random image, the same for the same arguments."""

    def make(height: int, width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return torch.rand(3, height, width, generator=rng, dtype=torch.float64).to(dtype)

    return make


class HandNetwork:
    """Smooth, float64, and short enough to write down.

    `pixels` is the image; `mixed` is four channels, each a sum of the colours, weighted by `matrix`; `deep` has half
    as many rows and columns of five channels; `logits` are three numbers.
    """

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(7)
        self.matrix = torch.randn(4, 3, generator=rng, dtype=torch.float64)
        self.kernel = torch.randn(5, 4, 3, 3, generator=rng, dtype=torch.float64)
        self.head = torch.randn(3, 5, generator=rng, dtype=torch.float64)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        mixed = torch.einsum("kc,bchw->bkhw", self.matrix.to(images), images)
        deep = F.softplus(F.conv2d(torch.tanh(mixed), self.kernel.to(images), stride=2, padding=1))
        logits = deep.mean((2, 3)) @ self.head.to(images).T
        return {"pixels": images, "mixed": mixed, "deep": deep, "logits": logits[:, :, None, None]}


@pytest.fixture(scope="session")
def hand() -> HandNetwork:
    return HandNetwork()


class SmallModule(nn.Module):
    """Batch norms of both kinds, a residual block and a head; with `in_place` written as torchvision writes them."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace=in_place)
        self.block = nn.ModuleDict(
            {
                "conv": nn.Conv2d(6, 6, 3, padding=1, bias=False),
                "norm": BatchNormAct2d(6, act_layer=nn.SiLU, inplace=in_place),
                "conv2": nn.Conv2d(6, 6, 3, padding=1, bias=True),
            }
        )
        self.relu2 = nn.ReLU(inplace=in_place)
        self.tail = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.stem(x)))
        y = self.block["conv2"](self.block["norm"](self.block["conv"](x)))
        if self.in_place:
            y += x
        else:
            y = y + x
        return self.fc(self.pool(self.tail(self.relu2(y))).flatten(1))


def small_card(min_side: int = 1, **changes: object) -> ModelCard:
    values = {
        "name": "small",
        "source": "timm",
        "architecture": "small",
        "mean": MEAN,
        "std": STD,
        "weights_file": "",
        "weights_url": "",
        "sha256": "",
        "licence": "",
        "parameters": None,
        "min_side": min_side,
        "classes": 10,
        "aliases": {"first": "relu1", "residual": "add"},
    }
    return ModelCard(**(values | changes))


@pytest.fixture(scope="session")
def card() -> Callable[..., ModelCard]:
    return small_card


@pytest.fixture(scope="session")
def randomise() -> Callable[..., nn.Module]:
    """Give a module seeded weights, and batch norms that have seen something; then freeze it."""

    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        rng = torch.Generator().manual_seed(seed)
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=rng, dtype=torch.float64) * 0.3)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_var.abs_().add_(0.1)
                norm.weight.data.add_(1)
        return module.eval().requires_grad_(False)

    return fill


@pytest.fixture
def small_modules(randomise) -> tuple[nn.Module, nn.Module]:
    """The same float64 network twice: written with in-place operations, and without."""
    return randomise(SmallModule(True).double()), randomise(SmallModule(False).double())


@pytest.fixture
def small(small_modules) -> Network:
    return Network(small_card(), small_modules[0], "none")
