import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phosphene.errors import SettingsError
from phosphene.recipe.terms import ClassTerm, LayerTerm, Objective, channel, label, layer, neuron

WEIGHTS = st.floats(-100, 100, allow_nan=False)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.*?]{0,20}", fullmatch=True)
FRACTIONS = st.integers(0, 1000).map(lambda n: n / 1000)


@given(
    NAMES,
    st.lists(st.integers(0, 2048), max_size=4).map(tuple),
    st.none() | st.tuples(FRACTIONS, FRACTIONS),
    WEIGHTS,
)
def test_a_layer_term_is_read_as_it_is_spelt(name, channels, position, weight):
    term = LayerTerm(name, channels, position, weight)
    assert LayerTerm.parse(str(term)) == term


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9 ',-]{0,30}[a-z]", fullmatch=True), WEIGHTS)
def test_a_class_term_is_read_as_it_is_spelt(name, weight):
    term = ClassTerm(name, weight)
    assert ClassTerm.parse(str(term)) == term


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("mixed3", LayerTerm("mixed3")),
        ("mixed5:0.5", LayerTerm("mixed5", weight=0.5)),
        ("mixed4[12,40]:-1", LayerTerm("mixed4", (12, 40), weight=-1)),
        ("blocks.4.2@0.5,0.25", LayerTerm("blocks.4.2", position=(0.5, 0.25))),
        ("blocks.?.2[7]@0,1:2e-3", LayerTerm("blocks.?.2", (7,), (0, 1), 0.002)),
    ],
)
def test_spellings(text, term):
    assert LayerTerm.parse(text) == term


@pytest.mark.parametrize("text", ["", "mixed3:", "mixed3:a", "a b", "mixed3@0.5", "mixed3:1:2", "x@2,0"])
def test_a_wrong_spelling_is_quoted(text):
    with pytest.raises(SettingsError) as caught:
        LayerTerm.parse(text)
    assert repr(text) in str(caught.value)


def test_the_algebra_is_a_flat_sum_and_weights_apply_once():
    objective = 2 * (layer("a") - 0.5 * channel("b", 1, 2)) - label("espresso")
    assert objective.settings["layers"] == ("a:2", "b[1,2]:-1")
    assert objective.settings["classes"] == ("espresso:-1",)
    assert str(objective) == "a:2 + b[1,2]:-1 + espresso:-1"


def test_a_minus_b_is_the_negative_of_b_minus_a():
    a, b = layer("a"), 0.3 * neuron("b", 4, 0.5, 0.25)
    assert -(a - b) == Objective((b - a).terms[::-1])


def test_objectives_compare_pickle_and_copy():
    objective = layer("a") + 0.5 * label(967)
    assert pickle.loads(pickle.dumps(objective)) == objective == copy.deepcopy(objective)
    assert objective != layer("a") + 0.25 * label(967)
    assert hash(objective) == hash(layer("a") + 0.5 * label("967"))
