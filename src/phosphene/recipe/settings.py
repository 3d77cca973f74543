"""Every setting, its default and its range. No tensors, no devices.

The groups are what the parts of a dream need to know (`Target`, `Octaves`, `Ascent`, `Tiles`); a `Recipe` is all of
them at once, flat, so that a setting has one name on the command line, in Python, in TOML and in the studio.
"""

import re
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, field_validator, model_validator

from phosphene.errors import SettingsError, UnknownNameError, shown
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.recipe.own import SCHEDULED, Schedule, is_own
from phosphene.recipe.terms import KINDS, Cut, Objective

Norm = Annotated[
    Literal["mean_abs", "std", "laplacian"],
    WrapValidator(lambda given, known: given if is_own(given) else known(given)),
]
"""A built-in norm, or the name of a custom one: `own:NAME`; see `own.norm`."""

LAST = 30
"""The most octaves."""

RENAMED = {"winograd": "fast"}
"""Old names of settings, which are still read: in recipes, in Python and as flags."""


class Settings(BaseModel):
    """Frozen, and closed to names that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Eye(Settings):
    """The network that looks."""

    model: Annotated[
        str, Field(description="The network; `phosphene models` lists them. Your own is package.module:callable.")
    ] = DEFAULT_MODEL
    weights: Annotated[
        str, Field(description="pretrained, untrained (seeded random), or a .safetensors, .pth or .h5 (Keras) file.")
    ] = "pretrained"
    fast: Annotated[
        bool,
        Field(description="On the CPU, use faster convolution algorithms, which round slightly differently."),
    ] = True


class Target(Settings):
    """What is maximised."""

    layers: Annotated[
        tuple[str, ...],
        Field(description="Layers to maximise, each NAME[CHANNELS]@ROW,COLUMN:WEIGHT; NAME is enough, or a pattern."),
    ] = ()
    classes: Annotated[
        tuple[str, ...], Field(description="ImageNet classes to maximise, by name or number, each NAME:WEIGHT.")
    ] = ()
    terms: Annotated[
        tuple[str, ...], Field(description="Objectives of your own or from an installed package, each NAME:WEIGHT.")
    ] = ()
    score: Annotated[
        Literal["l2", "mean"],
        Field(description="What is maximised: the mean of the squared activation, or of the activation."),
    ] = "l2"
    balanced: Annotated[bool, Field(description="Scale each layer's gradient to unit norm before weighting.")] = False
    guide: Annotated[str | None, Field(description="A photograph whose features the dream is drawn towards.")] = None
    guide_by: Annotated[
        Literal["match", "channels"],
        Field(
            description="match: the guide's best-matching feature at each position; channels: weighted as in the guide."
        ),
    ] = "match"

    @field_validator(*KINDS)
    @classmethod
    def _spell_terms(cls, spelt: tuple[str, ...], info: Any) -> tuple[str, ...]:
        return tuple(str(KINDS[str(info.field_name)].parse(text)) for text in spelt)

    @property
    def objective(self) -> Objective:
        """The terms, read."""
        return Objective(tuple(kind.parse(text) for name, kind in KINDS.items() for text in getattr(self, name)))


FILES = ("weights", "mask", "guide")
"""Settings that may name a file."""

OctaveScale = Annotated[float, Field(gt=1, le=4, description="Size ratio of successive octaves.")]
LongSide = Annotated[
    Literal["full"] | Annotated[int, Field(ge=1, lt=2**31)],
    Field(description="Long side of the picture in px, or full for all pixels."),
]


class Octaves(Settings):
    """The sizes that are dreamed, coarse to fine."""

    octaves: Annotated[int, Field(ge=1, le=LAST, description="How many sizes to dream at, coarse to fine.")] = 5
    octave_scale: OctaveScale = 1.4
    detail: Annotated[bool, Field(description="Put back the photograph's detail that smaller octaves lack.")] = True


class Ascent(Settings):
    """The steps within one octave."""

    steps: Annotated[int, Field(ge=1, le=100_000, description="Gradient steps in each octave.")] = 15
    step_size: Annotated[
        float, Field(gt=0, le=1, description="Mean change of a pixel at each step; pixels are 0 to 1.")
    ] = 0.008
    norm: Annotated[Norm, Field(description="How the gradient is normalised before the step.")] = "laplacian"
    jitter: Annotated[
        int, Field(ge=0, le=512, description="Largest random shift of the image at each step, in px.")
    ] = 32
    blur: Annotated[
        float, Field(ge=0, le=32, description="Standard deviation of the gradient's blur, in px; 0 is none.")
    ] = 0.0
    schedules: Annotated[
        tuple[str, ...],
        Field(
            description="step_size, jitter or blur from step to step, each SETTING=NUMBER,NUMBER/NUMBER: commas "
            "between steps, slashes between octaves; the last number is held."
        ),
    ] = ()

    @field_validator("schedules")
    @classmethod
    def _spell_schedules(cls, schedules: tuple[str, ...]) -> tuple[str, ...]:
        found = [Schedule.parse(text) for text in schedules]
        for schedule in found:
            _check_schedule(schedule)
        return tuple(map(str, found))

    def at(self, octave: int, step: int) -> "Ascent":
        """The settings of a step, both counted from 1."""
        now = {each.setting: each.at(octave, step) for each in map(Schedule.parse, self.schedules)}
        return self.model_copy(update={name: type(getattr(self, name))(value) for name, value in now.items()})

    @property
    def drive(self) -> float:
        """The step sizes of the last octave, added up: the one number by which strengths compare."""
        rising = [each for each in map(Schedule.parse, self.schedules) if each.setting == "step_size"]
        if not rising:
            return self.step_size * self.steps
        return sum(rising[-1].at(LAST, step) for step in range(1, self.steps + 1))


def _check_schedule(schedule: Schedule) -> None:
    """Raise `SettingsError` where a number may not change, or is outside its range at some step."""
    name = schedule.setting
    if name not in SCHEDULED:
        raise UnknownNameError(
            "setting that may differ from step to step", name, SCHEDULED, f"There are {', '.join(SCHEDULED)}."
        )
    for number in {number for steps in schedule.octaves for number in steps}:
        try:
            Ascent.model_validate({name: number})
        except ValidationError as error:
            raise SettingsError(describe_problems(error.errors())) from None


class Tiles(Settings):
    """How the gradient of a large image is cut into pieces."""

    tile: Annotated[
        Literal["auto", "none"] | Annotated[int, Field(ge=16, lt=2**31)],
        Field(description="Side of a tile in px; none for the whole image at once; auto for what fits in memory."),
    ] = "auto"
    halo: Annotated[
        Literal["auto", "exact"] | Annotated[int, Field(ge=0, lt=2**31)],
        Field(description="Margin of a tile in px; exact gives the whole image's gradient, auto is within 1 % of it."),
    ] = "exact"
    cuts: Annotated[
        tuple[str, ...],
        Field(
            description="Layers where the network is cut into stages, each NAME[:TILE], TILE px being the tiles behind "
            "it; planned where tiles are auto."
        ),
    ] = ()
    batch: Annotated[int, Field(ge=1, le=1024, description="How many tiles are evaluated together.")] = 1

    @field_validator("cuts")
    @classmethod
    def _spell_cuts(cls, cuts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Cut.parse(text)) for text in cuts)


class Picture(Settings):
    """What is kept of the photograph."""

    size: LongSide = 1024
    enlarge: Annotated[bool, Field(description="Enlarge a photograph that is smaller than the size.")] = False
    mask: Annotated[str | None, Field(description="A grey image: white is dreamed, black is kept.")] = None
    colour: Annotated[
        Literal["dream", "original"], Field(description="Keep the dream's colours, or the photograph's.")
    ] = "dream"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed of all random numbers.")] = 0


class Recipe(Picture, Tiles, Ascent, Octaves, Target, Eye):
    """All that makes a dream of a photograph: with it, on a machine of the same kind, the same bytes again."""

    @field_validator(*KINDS, "cuts", "schedules", mode="before")
    @classmethod
    def _list(cls, given: Any) -> Any:
        """A single word is a list of one."""
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="before")
    @classmethod
    def _name_nearest(cls, given: Any) -> Any:
        if isinstance(given, dict):
            given = {
                RENAMED.get(name, name): fspath(value) if isinstance(value, PathLike) else value
                for name, value in given.items()
            }
            for name in given:
                if name not in cls.model_fields:
                    raise UnknownNameError("setting", str(name), cls.model_fields)
        return given

    @property
    def eye(self) -> Eye:
        """The network that looks."""
        return Eye(**{name: getattr(self, name) for name in Eye.model_fields})

    def but(self, **changes: Any) -> "Recipe":
        """This recipe with some settings changed, and validated again."""
        return type(self)(**{**self.model_dump(), **changes})


PRESETS: dict[str, dict[str, Any]] = {
    "plain": {"octaves": 1, "steps": 100, "step_size": 0.003},
    "octaves": {"octaves": 5, "octave_scale": 1.3},
    "tiles": {"octaves": 5, "octave_scale": 1.3, "tile": 256},
    "keras-tutorial": {
        "layers": ("mixed4", "mixed5:1.5", "mixed6:2", "mixed7:2.5"),
        "octaves": 3,
        "steps": 20,
        "step_size": 0.005,
        "norm": "mean_abs",
        "jitter": 0,
        "size": "full",
    },
    "tensorflow-tutorial": {
        "layers": ("mixed3", "mixed5"),
        "score": "mean",
        "octaves": 5,
        "octave_scale": 1.3,
        "detail": False,
        "steps": 100,
        "step_size": 0.005,
        "norm": "std",
        "jitter": 512,
        "size": 845,
        "enlarge": True,
    },
}
"""The report's three experiments: its main loop, octaves (section 5.7), and gradients in tiles (section 5.8). Then the
loops of Keras's and TensorFlow's tutorials, for `keras/inception_v3`: their step of 0.01 is on pixels in -1..1, and
TensorFlow's octaves end at 1.3**2 times its 500 px. `docs/site/coming-from.md` says what differs.
"""


_PLAIN = {
    "Input is not a valid path for <class 'pathlib.Path'>": "a path",
    "an instance of Sequence": "a list",
    "a dictionary or an instance of Objective": "an objective",
    "an instance of Stop": "an event",
    "callable": "a function",
    "string": "a text",
    "dictionary": "a mapping",
    "number": "a number",
    "number, unable to parse string as a number": "a number",
    "integer": "a whole number",
    "integer, unable to parse string as an integer": "a whole number",
    "integer, got a number with a fractional part": "a whole number",
    "boolean": "true or false",
    "boolean, unable to interpret input": "true or false",
}
"""What pydantic calls right -> what we do."""


def describe_problems(problems: Sequence[Mapping[str, Any]]) -> str:
    """Say what pydantic found wrong with the first setting: its name, its value, what would be right."""
    if not problems[0]["loc"]:
        return f"this is not what was asked for: {problems[0]['msg']}"
    name = problems[0]["loc"][0]
    ours = [problem["msg"] for problem in problems if problem["loc"][:1] == (name,)]
    within = ".".join(map(str, problems[0]["loc"]))
    if problems[0]["type"] == "missing":
        return f"{within} is missing: it has to be given"
    if problems[0]["type"] == "extra_forbidden":
        return f"{within} is not known here: leave it out"
    wanted = [re.sub(r"^Input should be (a valid )?", "", message) for message in ours]
    plain = [_PLAIN.get(each, each) for each in wanted]
    return f"{name} = {shown(problems[0]['input'])} will not do: it should be {' or '.join(dict.fromkeys(plain))}"
