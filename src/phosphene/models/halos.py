"""Halos that keep the error of a step under 1 %, in px, by model and layer; `benchmarks/halo.py` measured them.

Layers that are not here need more than 384 px, or were not measured yet: their halo is the exact one.
"""

from collections.abc import Mapping

HALOS: Mapping[str, Mapping[str, int]] = {
    "efficientnet_lite0": {"blocks.2.1": 48, "blocks.3.2": 80, "blocks.4.2": 160, "blocks.5.3": 352},
    "inception_v3": {"Mixed_5d": 112, "Mixed_6a": 112, "Mixed_6c": 320},
}
