"""Halos that keep the error of a step under 1 %, in px, by model and layer; `benchmarks/halo.py` measured them."""

from collections.abc import Mapping

HALOS: Mapping[str, Mapping[str, int]] = {
    "efficientnet_lite0": {"blocks.1.1": 0, "blocks.2.1": 0, "blocks.3.2": 80, "blocks.4.2": 160, "blocks.5.3": 352},
}
