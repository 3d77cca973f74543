"""The arrays of a Keras weights file by layer. It has the HDF5 layout of Keras before its third version:

    root.attrs["layer_names"]         the layers in the order of the model, each a group of this name
    group.attrs["weight_names"]       the arrays in the order of the layer, each a data set within the group

A list that is too long for one attribute is split into `layer_names0`, `layer_names1` and so on.

A damaged file can leave HDF5's own library in a loop without end, in which Ctrl-C is not heard. So a file is read in a
process apart first (`python -P -m phosphene.networks.hdf5 FILE`), which has a time limit; what hangs or crashes there
is not read here. This module does without PyTorch, so that takes a fraction of a second.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phosphene.errors import WeightsError

Array = NDArray[np.float32]
Arrays = dict[str, list[Array]]
"""The arrays of a file by layer."""

SECONDS = 60
"""How long it may take to read a file."""


def read_arrays(file: Path) -> Arrays:
    """Read a file, first in a process apart. `WeightsError` where it is none, is damaged, or is of another layout."""
    command = [sys.executable, "-P", "-m", "phosphene.networks.hdf5", str(file)]
    try:
        done = subprocess.run(command, timeout=SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{str(file)!r} could not be read within {SECONDS} seconds, and is damaged.") from None
    if done.returncode < 0:
        raise WeightsError(f"{str(file)!r} breaks the library that reads it, and is damaged.")
    return _read_here(file)


def _read_here(file: Path) -> Arrays:
    import h5py

    try:
        with h5py.File(file, "r") as root:
            group = root.get("model_weights", root)  # a file of a whole model has them in a group of their own
            _refuse_other_layouts(file, root, group)
            return {name: arrays for name in _listed(group, "layer_names") if (arrays := _of_layer(group[name]))}
    except (OSError, KeyError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{str(file)!r} is not a Keras weights file, or is damaged.") from error


def _of_layer(group: Any) -> list[Array]:
    return [np.asarray(group[name], np.float32) for name in _listed(group, "weight_names")]


def _listed(group: Any, attribute: str) -> list[str]:
    """A list of names, whole or split into numbered parts."""
    parts = [attribute] if attribute in group.attrs else _numbered(group.attrs, attribute)
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _numbered(attributes: Mapping[str, Any], attribute: str) -> list[str]:
    parts = [name for name in attributes if re.fullmatch(rf"{attribute}\d+", name)]
    return sorted(parts, key=lambda name: int(name.removeprefix(attribute)))


def _refuse_other_layouts(file: Path, root: Any, group: Any) -> None:
    names = _listed(group, "layer_names")
    if not names and ("layers" in root or "_layer_checkpoint_dependencies" in root):
        layout = "is a .weights.h5 of Keras 3, whose layers have other names"
    elif any(name.startswith("res2a_branch2a") for name in names):
        layout = "is the ResNet50 of 2015 to 2019 (res2a_branch2a), whose batch norms have another epsilon"
    elif any(name.startswith("convolution2d") for name in names):
        layout = "is of Keras 1 (convolution2d)"
    elif not names:
        layout = "has no list of layers"
    else:
        return
    raise WeightsError(
        f"{str(file)!r} {layout}: Phosphene reads the files of keras.applications, such as "
        f"resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5."
    )


if __name__ == "__main__":
    _read_here(Path(sys.argv[1]))
