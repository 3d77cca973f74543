"""Dream one step with many networks, untrained, at two sizes, and publish what came of it: docs/models.md.

Run it again and it goes on where it was: what is in docs/models.json is not done again.

    python scripts/models.py [--minutes 30]
"""

import argparse
import json
import time
from pathlib import Path

import torch

import phosphene
from phosphene.libraries import timm, torchvision

ROOT = Path(__file__).parent.parent
SIZES = ((224, 224), (256, 320))
LARGEST = 120_000_000
"""Parameters of the largest network that is tried: larger ones are too slow here to be worth it."""


def names() -> list[str]:
    """torchvision's classification models, and of each of timm's families the model with the shortest name."""
    families: dict[str, str] = {}
    for name in sorted(timm.list_models(), key=lambda name: (len(name), name)):
        families.setdefault(timm.get_pretrained_cfg(name).architecture.split("_")[0] if "_" in name else name, name)
    theirs = torchvision.models.list_models(module=torchvision.models)
    return [f"timm/{name}" for name in sorted(families.values())] + sorted(theirs)


def tried(name: str, size: tuple[int, int]) -> str:
    """Return `picture`, or the sentence that a user would read; what is neither begins with an exclamation mark."""
    try:
        dream = phosphene.dream(
            f"noise:{size[0]}x{size[1]}", model=name, weights="untrained", size="full", octaves=1, steps=1, tile="none"
        )
    except phosphene.PhospheneError as error:
        return str(error)
    except Exception as error:
        return f"! {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return f"picture: {dream.recipe.layers[0]}"


def is_small_enough(name: str) -> bool:
    from phosphene.networks import registry

    return sum(p.numel() for p in registry.skeleton(registry.card(name)).parameters()) <= LARGEST


def page(found: dict[str, dict[str, str]]) -> str:
    rows = [
        f"| `{name}` | {' | '.join(_cell(each.get(f'{height}x{width}', '')) for height, width in SIZES)} |"
        for name, each in sorted(found.items())
    ]
    pictures = [sum(each.get(f"{h}x{w}", "").startswith("picture") for each in found.values()) for h, w in SIZES]
    return "\n".join(
        [
            "# Networks that were tried",
            "",
            f"One step with each of {len(found)} untrained networks on noise, so far, by `scripts/models.py`, which",
            "goes on from there. A cell has the layer that was raised where nobody says which, or what a user",
            "reads.",
            f"At {SIZES[0][0]} x {SIZES[0][1]} px {pictures[0]} of them dreamed,",
            f"at {SIZES[1][0]} x {SIZES[1][1]} px (height x width) {pictures[1]}.",
            "",
            f"| network | {' | '.join(f'{h} x {w}' for h, w in SIZES)} |",
            f"| --- |{' --- |' * len(SIZES)}",
            *rows,
            "",
        ]
    )


def _cell(answer: str) -> str:
    return answer.removeprefix("picture: ").replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", nargs="*", help="names, instead of all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = ROOT / "docs/models.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    end = time.monotonic() + 60 * given.minutes
    for name in given.only or names():
        if time.monotonic() > end:
            break
        if name in found and not given.only:
            continue
        if not given.only and not is_small_enough(name):
            continue
        found[name] = {f"{height}x{width}": tried(name, (height, width)) for height, width in SIZES}
        print(name, found[name], flush=True)
        kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    (ROOT / "docs/models.md").write_text(page(found))


if __name__ == "__main__":
    main()
