"""Settings over time."""

import pytest

from phosphene.errors import SettingsError, UnknownNameError
from phosphene.film.timeline import Follow, Timeline, follow_of, tracks_of
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import choose


def timeline(*at, follows=(), **given):
    return Timeline(given, tracks=tracks_of(at), follows=follows)


def test_nothing_over_time_is_the_recipe():
    first, last, share = Timeline({"steps": 3}, "strokes").at(7.0)
    assert first == last == choose({"steps": 3}, "strokes")
    assert share == 0


@pytest.mark.parametrize(
    ("time", "value"), [(-1, 0.01), (0, 0.01), (1, 0.015), (2, 0.02), (3, 0.015), (4, 0.01), (9, 0.01)]
)
def test_a_number_moves_in_straight_lines(time, value):
    first, last, share = timeline("4:step_size=0.01", "0:step-size=0.01", "2:step_size=0.02").at(time)
    assert first.step_size == last.step_size == pytest.approx(value)
    assert share == 0


def test_whole_numbers_stay_whole():
    assert [timeline("0:steps=2", "1:steps=5").at(t)[0].steps for t in (0, 0.4, 0.6, 1)] == [2, 3, 4, 5]


def test_looks_fade_by_weight_and_their_numbers_go_along():
    asked = timeline("0:look=strokes", "8:look=creatures")
    first, last, share = asked.at(2.0)
    assert (first.layers, last.layers) == (choose({}, "strokes").layers, choose({}, "creatures").layers)
    assert share == 0.25
    assert first.step_size == last.step_size == pytest.approx(0.006 + 0.25 * 0.002)
    assert asked.at(8.0) == (choose({}, "creatures"), choose({}, "creatures"), 0)
    assert asked.at(0.0)[0] == choose({}, "strokes")


def test_what_a_person_gives_stays_above_the_looks():
    first, last, _ = timeline("0:look=strokes", "8:look=creatures", step_size=0.5).at(4)
    assert first.step_size == last.step_size == 0.5


def test_the_sound_drives_a_number():
    asked = timeline(follows=(Follow("step_size", "bass", 0.01, 0.03), Follow("change", "sound", 0.0, 0.1)))
    assert asked.at(1.0, lambda band, time: {"bass": 0.5, "sound": 0.2}[band])[0].step_size == pytest.approx(0.02)
    assert asked.change(1.0, lambda band, time: 0.2) == pytest.approx(0.02)
    assert asked.change(1.0) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sound", Follow("step_size", "sound", 0.004, 0.012)),
        ("step_size=bass:0.001..0.002", Follow("step_size", "bass", 0.001, 0.002)),
        ("steps=treble:2..9", Follow("steps", "treble", 2, 9)),
        ("change=mids:.04..0.1", Follow("change", "mids", 0.04, 0.1)),
    ],
)
def test_follow_is_read(text, expected):
    assert follow_of(text, Recipe()) == expected


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("8", SettingsError, "'8' is no setting at a time; one is spelt T:SETTING=VALUE"),
        ("1:stepsize=2", UnknownNameError, "'stepsize'; did you mean step_size"),
        ("1:norm=std", SettingsError, "norm cannot change within a film"),
        ("1:size=300", SettingsError, "size cannot change within a film"),
        ("1:steps=many", SettingsError, "'many' in '1:steps=many' is not a number"),
    ],
)
def test_what_cannot_follow_a_time(text, error, sentence):
    with pytest.raises(error, match=sentence):
        tracks_of([text])


@pytest.mark.parametrize("text", ["norm=sound", "change=sound", "steps=bass:low", "=:"])
def test_what_cannot_follow_the_sound(text):
    with pytest.raises(SettingsError):
        follow_of(text, Recipe())


def test_a_value_out_of_range_is_said():
    with pytest.raises(SettingsError, match="steps = 0 will not do"):
        timeline("0:steps=0").at(0)
    with pytest.raises(UnknownNameError, match="creaturs"):
        timeline("0:look=creaturs").at(0)


@pytest.mark.parametrize(
    ("at", "follows", "sentence"),
    [
        (("0:change=5",), (), r"change = 5 will not do: it should be above 0, and 0\.5 at most"),
        (("0:change=-1",), (), "change = -1 will not do"),
        ((), (Follow("step_size", "bass", 0.0, 0.02),), "step_size = 0"),
        ((), (Follow("octave_scale", "bass", 0.7, 2.1),), "octave_scale = 0.7"),
    ],
)
def test_what_leaves_its_range_is_told_before_the_first_frame(at, follows, sentence):
    with pytest.raises(SettingsError, match=sentence):
        timeline(*at, follows=follows).check()
    timeline("0:change=0.1", follows=(Follow("step_size", "bass", 0.001, 0.02),)).check()
