"""torchvision and timm, imported without PyTorch's compiler.

Both import `torch._dynamo` for a function and a decorator that no dream calls. That takes 1.7 of 5 s, and 150 MB. Here
they get a stand-in, which fetches the compiler when it is used, and which is taken away again.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from importlib import import_module
from types import ModuleType
from typing import Any

import torch  # noqa: F401

DYNAMO = "torch._dynamo"


def _import_without_compiler(*libraries: str) -> None:
    """Import libraries. Where they ask for more than the stand-in has, they are imported again, with the compiler."""
    stand_in, utils = ModuleType(DYNAMO), ModuleType(f"{DYNAMO}.utils")
    vars(stand_in).update(disable=_disable, utils=utils)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    standing = {module.__name__: module for module in (stand_in, utils)}
    sys.modules.update(standing)
    try:
        with suppress(ImportError, AttributeError):
            for library in libraries:
                import_module(library)
    finally:
        for name in standing:
            del sys.modules[name]


def _disable(function: Callable[..., Any] | None = None, recursive: bool = True, **reason: Any) -> Any:
    """As `torch._dynamo.disable`."""
    if function is None:
        return partial(_disable, recursive=recursive, **reason)

    @wraps(function)
    def disabled(*arguments: Any, **keywords: Any) -> Any:
        return import_module(DYNAMO).disable(function, recursive, **reason)(*arguments, **keywords)

    return disabled


def _is_compile_supported(device: str) -> bool:
    """As `torch._dynamo.utils.is_compile_supported`."""
    return bool(import_module(f"{DYNAMO}.utils").is_compile_supported(device))


if DYNAMO not in sys.modules:
    _import_without_compiler("torchvision", "timm")

import timm  # noqa: E402
import torchvision  # noqa: E402
from timm.layers.conv2d_same import Conv2dSame  # noqa: E402
from timm.layers.norm_act import BatchNormAct2d  # noqa: E402
from timm.layers.padding import get_same_padding  # noqa: E402
from timm.models._features_fx import get_notrace_functions, get_notrace_modules  # noqa: E402
from torchvision.models.feature_extraction import NodePathTracer  # noqa: E402

__all__ = [
    "BatchNormAct2d",
    "Conv2dSame",
    "NodePathTracer",
    "get_notrace_functions",
    "get_notrace_modules",
    "get_same_padding",
    "timm",
    "torchvision",
]
