"""Every address of the studio, asked in every wrong way: an error is JSON with one sentence, and nothing falls over."""

import random
from itertools import product

import pytest
import torch

from phosphene.recipe.settings import Recipe
from phosphene.studio.cost import megapixel_steps
from soak.asking import BODIES, addresses, check, wrong_request
from studio.conftest import end, start


@pytest.mark.parametrize("path", addresses())
def test_every_body_to_every_address(studio, path):
    for part in ("{name:path}", "{name}", "{id}"):
        path = path.replace(part, "nothing")
    for queue, body in product(("dreams", "previews", "nonsense") if "{queue}" in path else ("",), BODIES):
        if path not in ("/", "/api/catalogue"):
            assert check(studio, "POST", path.replace("{queue}", queue), body) >= 400


def test_wrong_requests_of_every_kind(studio):
    rng = random.Random(5)
    for _ in range(150):
        check(studio, *wrong_request(rng))
    assert studio.ask("GET", "/api/pictures")[0] == 200


def test_thumbnails_know_the_folder_only(studio, tmp_path):
    torch.save({}, tmp_path / "x.pth")
    for name in (tmp_path / "x.pth", tmp_path / "none.pth", "../x.pth"):
        status, answer = studio.ask("GET", f"/api/thumbnail?model=efficientnet_lite0&layer=blocks.1.1&weights={name}")
        assert (status, answer["error"][:32]) == (404, "there is no weights file called ")


def test_errors_do_not_tell_where_the_folder_is(studio):
    status, answer = studio.ask("POST", "/api/photographs?name=holiday.png", b"\x89PNG\r\n\x1a\n and no more")
    assert (status, answer["error"][:26]) == (422, "'holiday.png' is broken or")


def test_an_order_costs_no_more_than_its_owner_lets_it(tmp_path):
    assert megapixel_steps(Recipe(size="full", octaves=1, steps=10), (1000, 2000)) == 20
    assert megapixel_steps(Recipe(size=1000, octaves=2, octave_scale=2, steps=10), (1000, 2000)) == pytest.approx(6.25)
    running = start(tmp_path / "dreams", "--most", "3")
    try:
        order = {"photograph": "sample:coffee", "settings": {"steps": 100000, "octaves": 30}}
        status, answer = running.ask("POST", "/api/dreams", order)
        assert status == 422
        assert "and this studio takes 3 for an order: ask for fewer steps" in answer["error"]
        ways = [{"model": "efficientnet_lite0", "look": look} for look in ("eyes", "rings")]
        status, answer = running.ask("POST", "/api/comparisons", {"photograph": "sample:coffee", "ways": ways})
        assert "and this studio takes 3" in answer["error"]
        small = {"photograph": "sample:coffee", "settings": {"steps": 1, "octaves": 1, "size": 64}}
        assert running.ask("POST", "/api/previews", small)[0] == 201
    finally:
        end(running)
