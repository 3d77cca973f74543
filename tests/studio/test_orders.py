"""From what the page asks for to a recipe, and back."""

import pytest

from phosphene import imagefile
from phosphene.errors import SettingsError, UnknownNameError
from phosphene.job import prepare, run
from phosphene.recipe.looks import LOOKS
from phosphene.recipe.provenance import Made, to_toml
from phosphene.recipe.spelling import choose
from phosphene.studio.catalogue import layers
from phosphene.studio.folder import Folder
from phosphene.studio.requests import Order, restored, shown
from phosphene.studio.thumbnails import STATIC, of_layer
from studio.words import keep


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_full_size_is_given_first(folder):
    assert Order(photograph="sample:coffee").recipe(folder).size == "full"
    assert Order(photograph="sample:coffee", settings={"size": 300}).recipe(folder).size == 300


@pytest.mark.parametrize("size", ["full", 1024, 300])
def test_what_is_shown_means_the_same_when_it_is_asked_for(folder, size):
    recipe = choose({"size": size, "steps": 7}, "rings")
    known = shown(recipe, "sample:coffee")
    assert Order(photograph="sample:coffee", look=known["look"], settings=known["given"]).recipe(folder) == recipe
    assert ("size" in known["given"]) == (size != "full")


def test_a_recipe_comes_back_with_its_files(folder, photographs):
    path = keep(folder, photographs["coffee"].read_bytes(), "coffee.png")
    guide = keep(folder, photographs["chelsea"].read_bytes(), "chelsea.png")
    order = Order(photograph=path.name, settings={"guide": guide.name, "mask": path.name, "steps": 1, "octaves": 1})
    dream = run(prepare(folder.photograph(order.photograph), order.recipe(folder)))
    known = restored(to_toml(dream.recipe, dream.made), folder)
    assert (known["photograph"], known["notes"], known["unfinished"]) == (path.name, [], None)
    assert Order(photograph=path.name, look=known["look"], settings=known["given"]).recipe(folder) == dream.recipe
    guide.unlink()
    path.unlink()
    known = restored(to_toml(dream.recipe, dream.made), folder)
    assert known["photograph"] is None
    assert "guide" not in known["given"]
    assert [sentence.split()[1] for sentence in known["notes"]] == ["mask", "guide", "photograph"]


def test_weights_are_named_as_files_of_the_folder(folder):
    (folder.root / "mine.pth").touch()
    order = Order(photograph="sample:coffee", settings={"weights": "mine.pth", "layers": ["blocks.4.2"]})
    recipe = order.recipe(folder)
    assert recipe.weights == str(folder.root / "mine.pth")
    known = shown(recipe, "sample:coffee")
    assert (known["recipe"]["weights"], known["given"]["weights"]) == ("mine.pth", "mine.pth")
    made = Made(
        source="sample:coffee", source_sha256="", source_size=(1, 1), size=(1, 1), weights="", device="cpu", versions={}
    )
    known = restored(to_toml(recipe, made), folder)
    assert Order(photograph="sample:coffee", look=known["look"], settings=known["given"]).recipe(folder) == recipe
    (folder.root / "mine.pth").unlink()
    known = restored(to_toml(recipe, made), folder)
    assert "weights" not in known["given"]
    assert known["notes"] == ["its weights are not in the studio's folder: put the file there to use them again"]


def test_titles():
    kept = "my-cat-0123456789ab.png"
    assert Order(photograph="sample:coffee").title == "coffee creatures"
    assert Order(photograph=kept, look="rings").title == "my-cat rings"
    assert Order(photograph=kept, look="rings", settings={"layers": ["blocks.1.1:2"]}).title == "my-cat blocks.1.1:2"


def test_what_is_out_of_range_is_one_sentence(folder):
    with pytest.raises(SettingsError, match="octaves = 99 will not do: it should be less than or equal to 30"):
        Order(photograph="sample:coffee", settings={"octaves": 99}).recipe(folder)


def test_the_thumbnails_that_come_with_the_package_are_of_its_looks_and_layers(folder):
    wanted = {"looks": set(LOOKS["efficientnet_lite0"])}
    wanted["layers"] = {layer["name"] for layer in layers("efficientnet_lite0")["layers"]}
    for kind, side in (("looks", 320), ("layers", 160)):
        paths = list((STATIC / kind).glob("*.webp"))
        assert {path.stem for path in paths} == wanted[kind]
        assert {max(imagefile.read(path).image.shape) for path in paths} == {side}
    assert of_layer(folder, "efficientnet_lite0", "blocks.1.1").parent == STATIC / "layers"
    for lost in ("../looks/agate", "blocks.9.9"):
        with pytest.raises(UnknownNameError, match="no layer of efficientnet_lite0 called"):
            of_layer(folder, "efficientnet_lite0", lost)
