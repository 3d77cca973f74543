"""The node pack for ComfyUI, against a stand-in of what it uses; its README says what it did in the real one."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

PACK = Path(__file__).parent.parent / "integrations/comfyui/__init__.py"


class Kind:
    """A type of inputs and outputs, as `io.Image`: what it is given is kept."""

    @staticmethod
    def Input(id, **options):  # noqa: N802
        return (
            SimpleNamespace(id=id, optional=False, **options)
            if "optional" not in options
            else SimpleNamespace(id=id, **options)
        )

    @staticmethod
    def Output(**options):  # noqa: N802
        return SimpleNamespace(**options)


class Schema(SimpleNamespace):
    pass


class NodeOutput:
    def __init__(self, *values):
        self.values = values


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI as a node sees it; `told` is the progress that it heard of, and `cancelled` whether it is to end."""
    told, state = [], SimpleNamespace(cancelled=False)

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            told.append((value, self.total, preview))

    class InterruptProcessingError(Exception):
        pass

    def throw():
        if state.cancelled:
            raise InterruptProcessingError

    io = SimpleNamespace(
        ComfyNode=object, Schema=Schema, NodeOutput=NodeOutput,
        **dict.fromkeys(("Image", "Combo", "String", "Float", "Int", "Mask"), Kind),
    )  # fmt: skip
    latest = ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, object
    utils = ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar
    management = ModuleType("comfy.model_management")
    management.throw_exception_if_processing_interrupted = throw
    for name, module in {
        "comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest,
        "comfy": ModuleType("comfy"), "comfy.model_management": management, "comfy.utils": utils,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("phosphene_comfyui", PACK)
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return SimpleNamespace(pack=pack, told=told, state=state, interrupted=InterruptProcessingError)


GIVEN = {"look": "creatures", "model": "efficientnet_lite0", "layer": "", "step_size": 0.01, "steps": 5, "octaves": 1}


@pytest.mark.slow
def test_the_node_dreams_a_batch_under_a_mask_in_inference_mode(comfy):
    (node,) = asyncio.run(asyncio.run(comfy.pack.comfy_entrypoint()).get_node_list())
    names = [given.id for given in node.define_schema().inputs]
    images = torch.rand(2, 48, 64, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 48, 64)
    mask[:, :, 32:] = 1
    arguments = {"image": images, "seed": 0, "mask": mask, **GIVEN}
    assert set(arguments) == set(names)
    with torch.inference_mode():
        (dreams,) = node.execute(**arguments).values
    assert dreams.shape == images.shape
    changed = (dreams - images).abs()
    assert changed[:, :, :32].max() < 1e-6
    assert (changed[:, :, 32:].amax((1, 2, 3)) > 0.01).all()
    assert [(value, total) for value, total, _ in comfy.told] == [(value, 200) for value in range(20, 201, 20)]
    shown = [preview for _, _, preview in comfy.told if preview is not None]
    assert [(kind, picture.size) for kind, picture, _ in shown] == [("JPEG", (64, 48))] * 2


def test_cancel_ends_it_after_a_step(comfy):
    comfy.state.cancelled = True
    (node,) = asyncio.run(asyncio.run(comfy.pack.comfy_entrypoint()).get_node_list())
    with pytest.raises(comfy.interrupted):
        node.execute(image=torch.rand(1, 32, 32, 3), seed=0, **GIVEN)
    assert comfy.told == []
