from pathlib import Path

import pytest
from pydantic import ValidationError

from phosphene.errors import ImageError, SettingsError, UnknownNameError
from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS
from phosphene.recipe.provenance import Made, from_toml, to_toml
from phosphene.recipe.settings import PRESETS, Recipe
from phosphene.recipe.spelling import choose, current, validated

MADE = Made(
    source='a "cat".png',
    source_sha256="ab" * 32,
    source_size=(3, 4),
    size=(3, 4),
    weights="untrained:0",
    device="cpu",
    versions={"torch": "2"},
)


def test_recipes_are_frozen_and_closed():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.steps = 3
    with pytest.raises(UnknownNameError, match="no setting called 'step'; did you mean steps"):
        Recipe(step=3)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("steps", 0, "greater than or equal to 1"),
        ("step_size", float("nan"), "a finite number"),
        ("norm", "lapla", "'mean_abs', 'std' or 'laplacian'"),
        ("tile", 3, "'none' or greater than or equal to 16"),
        ("octave_scale", 1, "greater than 1"),
        ("seed", -1, "greater than or equal to 0"),
        ("size", "huge", "'full'"),
    ],
)
def test_a_value_out_of_range_is_one_sentence_with_the_value(name, value, wanted):
    with pytest.raises(SettingsError) as caught:
        validated({name: value})
    assert str(caught.value).startswith(f"{name} = {value!r} will not do")
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_old_names_of_settings_are_read():
    assert Recipe(winograd=False) == Recipe(fast=False) != Recipe()
    assert choose({"winograd": False}) == choose({"fast": False})
    kept = to_toml(Recipe(fast=False), MADE)
    assert from_toml(kept.replace("fast =", "winograd =")) == from_toml(kept)
    words = ["dream", "--no-winograd", "--winograd", "--winograd=false", "--no-fast", "--winograds", "winograd", "-o"]
    now = ["dream", "--no-fast", "--fast", "--fast=false", "--no-fast", "--winograds", "winograd", "-o"]
    assert [current(word) for word in words] == now


def test_files_may_be_paths():
    given = {"mask": "a.png", "guide": "b.png", "weights": "c.pth"}
    assert choose({name: Path(value) for name, value in given.items()}) == choose(given)


def test_every_setting_is_described():
    for name, field in Recipe.model_fields.items():
        assert str(field.description).endswith("."), name


def test_terms_are_checked_and_spelt_in_one_way():
    assert Recipe(layers=("a:1.0", " b[1]:0.50 ")).layers == ("a", "b[1]:0.5")
    with pytest.raises(SettingsError, match="not a layer term"):
        Recipe(layers=("a:b",))


def test_a_changed_recipe_is_validated_again():
    assert Recipe().but(steps=3).steps == 3
    with pytest.raises(ValidationError):
        Recipe().but(steps=0)


def test_drive_is_step_size_times_steps():
    assert Recipe(steps=20, step_size=0.01).drive == pytest.approx(0.2)


@pytest.mark.parametrize("model", LOOKS)
def test_each_model_has_at_least_five_looks_and_they_are_recipes(model):
    assert len(LOOKS[model]) >= 5
    assert DEFAULT_LOOK in LOOKS[model]
    recipes = [choose({"model": model}, look) for look in LOOKS[model]]
    assert all(recipe.layers for recipe in recipes)
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)


def test_what_is_said_wins_over_the_preset_and_that_over_the_look():
    look = LOOKS["efficientnet_lite0"][DEFAULT_LOOK]
    assert choose({}).layers == tuple(look["layers"])
    assert choose({}, preset="plain").octaves == PRESETS["plain"]["octaves"]
    assert choose({"octaves": 3}, preset="plain").octaves == 3
    assert choose({"layers": ("blocks.1",)}).layers == ("blocks.1",)
    assert choose({"classes": ("espresso",)}).layers == ()


def test_unknown_looks_and_presets_give_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean creatures"):
        choose({}, "creature")
    with pytest.raises(UnknownNameError, match="did you mean plain"):
        choose({}, preset="plan")
    with pytest.raises(UnknownNameError, match="name a layer"):
        choose({"model": "alexnet"}, "creatures")


def test_a_recipe_is_read_as_it_is_written():
    recipe = Recipe(layers=("a[1]:-0.5",), classes=("espresso",), tile=64, mask="m.png", size="full")
    assert from_toml(to_toml(recipe, MADE)) == (recipe, MADE)


def test_a_broken_recipe_is_one_sentence():
    with pytest.raises(ImageError, match="cannot be read"):
        from_toml("model = 3")
    with pytest.raises(ImageError, match="cannot be read"):
        from_toml(to_toml(Recipe(), MADE).replace("steps = 15", "steps = 0"))
    with pytest.raises(ImageError, match="cannot be read"):
        from_toml("}")


def test_a_single_word_is_a_list_of_one():
    assert Recipe(classes="Egyptian cat").classes == ("Egyptian cat",)
    assert Recipe(schedules="blur=1,2").schedules == ("blur=1,2",)
