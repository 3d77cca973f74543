"""A study small enough for tests, and what its parts need."""

import pytest

import phosphene
from phosphene import imagefile

TINY = {"size": 72, "octaves": 2, "octave_scale": 1.4, "steps": 2, "jitter": 4}
NETWORKS = ("efficientnet_lite0", "resnet18")


@pytest.fixture(scope="session")
def networks():
    return NETWORKS


@pytest.fixture(scope="session")
def tiny_flags():
    """The settings of a study that takes seconds, for the command line."""
    return [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="session")
def coffee():
    return imagefile.read("sample:coffee")


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """Two untrained networks by two experiments and two depths; run once."""
    return phosphene.compare(
        "sample:coffee",
        tmp_path_factory.mktemp("study"),
        models=NETWORKS,
        modes=("plain", "octaves"),
        depths=2,
        weights="untrained",
        seeds=2,
        **TINY,
    )
