"""The command that is spelt is the recipe, read back by the command line's own parser."""

import shlex

import hypothesis
import hypothesis.strategies as st
import pytest

from phosphene.cli import app
from phosphene.recipe.looks import LOOKS
from phosphene.recipe.spelling import choose, command, flag, shortest

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([*LOOKS, "googlenet"]),
        "weights": st.sampled_from(["pretrained", "untrained", "my weights.pth"]),
        "layers": st.sampled_from([("blocks.3.2",), ("a", "b:-0.5"), ("a[1,2]@0.5,0.25:2",)]),
        "classes": st.sampled_from([("tabby",), ("Egyptian cat:2", "281")]),
        "fast": st.booleans(),
        "score": st.sampled_from(["l2", "mean"]),
        "balanced": st.booleans(),
        "detail": st.booleans(),
        "guide": st.sampled_from(["it's a guide.png"]),
        "mask": st.sampled_from(["-mask.png", "mask $HOME.png"]),
        "octaves": st.integers(1, 30),
        "octave_scale": st.floats(1.01, 4),
        "step_size": st.floats(1e-6, 1),
        "norm": st.sampled_from(["mean_abs", "std", "laplacian"]),
        "tile": st.sampled_from(["none", 256]),
        "halo": st.sampled_from(["exact", 0, 32]),
        "size": st.sampled_from(["full", 300]),
        "enlarge": st.booleans(),
        "colour": st.sampled_from(["dream", "original"]),
        "seed": st.integers(0, 2**63 - 1),
    },
)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(SETTINGS, st.data())
def test_a_command_means_its_recipe(settings, data):
    looks = LOOKS.get(settings.get("model", "efficientnet_lite0"), {})
    recipe = choose(settings, data.draw(st.sampled_from([None, *looks])))
    words = shlex.split(command(recipe, "my photo.jpg", "dream.png"))
    assert words[:2] == ["phosphene", "dream"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    given = bound.arguments.get("settings")
    chosen = given.model_dump(include=given.model_fields_set) if given else {}
    assert choose(chosen, bound.arguments.get("look")) == recipe
    assert bound.arguments["inputs"] == ["my photo.jpg"]


@pytest.mark.parametrize("look", LOOKS["efficientnet_lite0"])
def test_a_look_is_its_name(look):
    name, given = shortest(choose({"size": "full"}, look))
    assert name == (None if look == "creatures" else look)
    assert given == {"size": "full"}


def test_a_plain_dream_is_a_plain_command():
    assert command(choose({}), "a.jpg", "b.png") == "phosphene dream a.jpg -o b.png"


def test_flags():
    assert [flag(name) for name in ("layers", "classes", "octave_scale")] == ["layer", "class", "octave-scale"]
