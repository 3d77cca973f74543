"""Custom norms, masks and schedules: what is given as a function, and what a recipe keeps of it.

Of a norm or a mask a recipe keeps the name, `own:NAME`, and the function is given again. Of a schedule it keeps the
numbers, so that anyone can make the picture again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from os import PathLike
from typing import Any, Generic, TypeVar

from phosphene.errors import PhospheneError, SettingsError, UsageError
from phosphene.malloc import is_out_of_memory
from phosphene.recipe.terms import NUMBER

T = TypeVar("T")

MARK = "own:"

SCHEDULED = ("step_size", "jitter", "blur")
"""The numbers that may differ from step to step."""

TAKING = ("norm", "mask", "terms", *SCHEDULED)
"""Settings that functions are given for; `terms` by mistake, which `kept` says."""

STEPS = rf"{NUMBER}(?:,{NUMBER})*"
SCHEDULE = re.compile(rf"(?P<setting>[a-z_]+)=(?P<octaves>{STEPS}(?:/{STEPS})*)")


@dataclass(frozen=True)
class OwnNorm:
    """A function from a gradient [3, height, width] to the direction of a step, and how many px around it looks at."""

    function: Callable[[Any], Any]
    margin: int | None = None


class Held(Generic[T]):
    """What was given in this process, by name: for good, or only passed to a dream, of which the last few are held."""

    MOST_PASSED = 16

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.named: dict[str, T] = {}
        self.passed: dict[str, T] = {}

    def hold(self, name: str, value: T, passed: bool) -> str:
        """Hold a value by its name, in place of another one of that name, and return the name as a recipe keeps it."""
        if not re.fullmatch(r"[\w.-]+", name):
            raise SettingsError(
                f"{name!r} is no name for a {self.kind}: give one of letters and digits, as in "
                f"phosphene.{self.kind}(mine, 'mine')"
            )
        name = MARK + name
        self.passed.pop(name, None)
        if passed and name not in self.named:
            self.passed[name] = value
        else:
            self.named[name] = value
        for oldest in list(self.passed)[: -self.MOST_PASSED]:
            self.passed.pop(oldest, None)
        return name

    def find(self, name: str) -> T:
        """Return the value of a name; `UsageError` where it was not given in this process."""
        for held in (self.named, self.passed):
            if name in held:
                return held[name]
        raise UsageError(
            f"{name} is a custom {self.kind} that this process does not hold: give it again, with phosphene.{self.kind}"
        )

    def clear(self) -> None:
        """Forget all."""
        self.named.clear()
        self.passed.clear()


NORMS = Held[OwnNorm]("norm")
MASKS = Held[Any]("mask")
"""Arrays, or functions of (height, width)."""


def norm(function: Callable[[Any], Any], name: str | None = None, margin: int | None = None) -> str:
    """A custom norm: any function from a gradient to the direction of a step, both [3, height, width].

    A step is `step_size` times that direction, so one whose mean absolute value is about 1 is as strong as ours. With
    `margin`, a pixel of the direction depends on so many px around it, and on nothing else of the gradient; then it
    goes by way of the disk and on a cluster too. Without, it is given whole gradients, and the dream stays in memory.

    Returns its name, which a recipe keeps and `norm=` takes: `own:` and the function's own, or `name`. It is held
    for as long as the process lives, or until another norm is given its name.
    """
    return _norm(function, name, margin)


def _norm(
    function: Callable[[Any], Any], name: str | None = None, margin: int | None = None, passed: bool = False
) -> str:
    if margin is not None and margin < 0:
        raise SettingsError(f"margin = {margin} will not do: it is a number of px, 0 or more")
    return NORMS.hold(name or _name_of(function), OwnNorm(function, margin), passed)


def mask(given: Any, name: str | None = None) -> str:
    """A custom mask: an array or tensor [height, width], or a function that gives one for (height, width).

    It says, 0..1, how strongly to dream where. An array of another size than the dream's is stretched to it; of uint8
    and uint16 the type's largest is 1.

    Returns its name, which a recipe keeps and `mask=` takes: `own:` and the function's own, or a checksum. It is held
    for as long as the process lives, or until another mask is given its name.
    """
    return _mask(given, name)


def _mask(given: Any, name: str | None = None, passed: bool = False) -> str:
    if callable(given):
        return MASKS.hold(name or _name_of(given), given, passed)
    array = as_array(given)
    sort = f"{array.dtype}{array.shape}".encode() + array.tobytes()
    return MASKS.hold(name or f"mask-{sha256(sort).hexdigest()[:8]}", array, passed)


def bound_norm(name: str) -> OwnNorm | None:
    """Return the custom norm of this name, None for one of ours; `UsageError` where it was not given in this process.

    Another one may take the name later, so a dream holds the norm that it was prepared with.
    """
    return NORMS.find(name) if is_own(name) else None


def as_array(given: Any) -> Any:
    """Return the numbers of an array, a tensor or lists, as NumPy has them; `UsageError` where it has none."""
    import numpy as np

    try:
        return np.asarray(given.detach().cpu() if hasattr(given, "cpu") else given)
    except Exception as error:  # of NumPy, of PyTorch, or of whoever makes an array of it
        reason = str(error).split("\n")[0][:200]
        raise UsageError(f"a {type(given).__name__} has no numbers that can be taken ({reason})") from error


def own_mask(name: str) -> Any:
    """Return a custom mask by its name; `UsageError` where it was not given in this process."""
    return MASKS.find(name)


@contextmanager
def blamed_on(whose: str) -> Iterator[None]:
    """Within, other people's code runs: what it raises is a `UsageError` that says whose code it is.

    Our own errors pass, and so does memory that runs out, after which tiles are made smaller.
    """
    try:
        yield
    except PhospheneError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(f"{whose}, failed: {type(error).__name__}: {error}") from error


def is_own(name: Any) -> bool:
    """Whether something is the name of a custom norm or mask."""
    return isinstance(name, str) and name.startswith(MARK)


@dataclass(frozen=True)
class Schedule:
    """A number of the ascent for each octave and step. The last step's stays, and so do the last octave's.

    It is spelt `SETTING=NUMBER,NUMBER/NUMBER`: steps with commas between, octaves with strokes.
    """

    setting: str
    octaves: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        return f"{self.setting}={'/'.join(','.join(map(_spelt, steps)) for steps in self.octaves)}"

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read the spelling that `str` writes; a `SettingsError` says what is wrong with it."""
        return _parsed(text)

    @classmethod
    def of(cls, setting: str, function: Callable[[int, int], Any], octaves: int, steps: int) -> "Schedule":
        """Ask a function of (octave, step), counted from 1, for all numbers, of 6 digits: recipes stay short."""
        asked = [
            [_number(setting, function, octave + 1, step + 1) for step in range(steps)] for octave in range(octaves)
        ]
        return cls(setting, _shortest([_shortest(numbers) for numbers in asked]))

    def at(self, octave: int, step: int) -> float:
        """Return the number of a step, both counted from 1."""
        steps = self.octaves[min(octave, len(self.octaves)) - 1]
        return steps[min(step, len(steps)) - 1]


def is_function(setting: str, value: Any) -> bool:
    """Whether the value of a setting is a custom one: a function where one is taken, or an array as a mask."""
    if setting == "mask":
        return not isinstance(value, str | PathLike | None)
    return setting in TAKING and callable(value)


def kept(given: Mapping[str, Any], octaves: int, steps: int) -> dict[str, Any]:
    """Return custom settings as a recipe keeps them: names of norms and masks, and numbers of schedules."""
    hold: dict[str, Callable[..., str]] = {"norm": _norm, "mask": _mask}
    if "terms" in given:
        raise SettingsError(
            "terms takes no function: give an objective of your own as layers, as in layers=phosphene.term(mine)"
        )
    names = {setting: hold[setting](value, passed=True) for setting, value in given.items() if setting in hold}
    scheduled = [Schedule.of(name, value, octaves, steps) for name, value in given.items() if name not in hold]
    return {**names, "schedules": tuple(map(str, scheduled))}


def without(schedules: Iterable[str], *settings: str) -> tuple[str, ...]:
    """Return the schedules of other settings than these."""
    return tuple(text for text in schedules if Schedule.parse(text).setting not in settings)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", ""))


@lru_cache(maxsize=64)
def _parsed(text: str) -> Schedule:
    found = SCHEDULE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            f"{text!r} is not a schedule; one is spelt SETTING=NUMBER,NUMBER/NUMBER, steps with commas between and "
            f"octaves with strokes, as in step_size=0.02,0.01/0.005"
        )
    octaves = found["octaves"].split("/")
    return Schedule(found["setting"], tuple(tuple(map(float, steps.split(","))) for steps in octaves))


def _number(setting: str, function: Callable[[int, int], Any], octave: int, step: int) -> float:
    try:
        return float(f"{float(function(octave, step)):.6g}")
    except Exception as error:  # it is other people's code
        raise SettingsError(
            f"{setting} at octave {octave}, step {step} failed ({type(error).__name__}: {error}); a schedule "
            f"of your own is a function of both that gives a number"
        ) from error


def _shortest(items: Sequence[T]) -> tuple[T, ...]:
    """Leave out what only says the last one again."""
    last = len(items)
    while last > 1 and items[last - 2] == items[-1]:
        last -= 1
    return tuple(items[:last])


def _spelt(number: float) -> str:
    return repr(number).removesuffix(".0")
