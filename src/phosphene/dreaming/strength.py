"""Strength: how much a dream changed its photograph, and how to hold a film's dreams at one strength.

A film feeds each dream into the next. With nothing to hold it, what a dream added grows from frame to frame, and the
film drifts: it gets brighter, and then turns to mud.
"""

from phosphene.types import Image, Plane

POWER = 0.8
"""The change grows about as this power of the step size: some of it is clamped, and steps agree less and less."""

TURNS = 4
"""How often the strength is set right: each clamp to 0..1 takes a little of it away again."""

TINY = 1e-12


def rms_change(dream: Image, photograph: Image) -> float:
    """Root mean square, over all pixels and channels, of the difference; in pixel units, 0..1."""
    return float((dream.double() - photograph.double()).square().mean().sqrt())


def held(dream: Image, photograph: Image, change: float | None = None, mask: Plane | None = None) -> Image:
    """Return the dream with no channel brighter or darker on the whole than the photograph, in 0..1.

    With `change`, its `rms_change` is brought to that. What `mask` (0..1) keeps from being dreamed stays as it is.
    """
    for _ in range(TURNS):
        added = _zero_mean(dream - photograph, mask)
        if change is not None:
            added *= change / max(float(added.square().mean().sqrt()), TINY)
        dream = (photograph + added).clamp(0, 1)
    return dream


def _zero_mean(added: Image, mask: Plane | None) -> Image:
    if mask is None:
        return added - added.mean((1, 2), keepdim=True)
    return added - mask * (added.sum((1, 2), keepdim=True) / mask.sum().clamp_min(TINY))
