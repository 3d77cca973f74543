"""Every address of the studio, asked in every wrong way: an error is JSON with one sentence, and nothing falls over."""

import random
from itertools import product

import pytest
import torch
from starlette.routing import Route

from phosphene.recipe.settings import Recipe
from phosphene.studio.app import ROUTES
from phosphene.studio.cost import megapixel_steps
from studio.conftest import Running, end, start

BODIES = (
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"{}", b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"NaN", b"x" * 3_000_000,
    b'{"photograph": 1}', b'{"photograph": "sample:coffee", "settings": []}',
    b'{"photograph": "sample:coffee", "settings": {"steps": 1e400}}',
    b'{"photograph": "sample:coffee", "settings": {"layers": {"a": 1}}}',
    b'{"photograph": "sample:coffee", "settings": {"weights": 3, "mask": []}}',
    b'{"photograph": "sample:coffee", "look": "\\ud800"}', b'{"photograph": "\\u0000.png"}',
    b'{"photograph": "sample:coffee", "ways": [{"model": 1}]}', b'{"photograph": "sample:coffee", "ways": []}',
)  # fmt: skip
NAMES = ("a.png", "..%2F..%2Fetc%2Fpasswd", "%00", "%ff", "x" * 3000, ".cache", "%F0%9F%90%95", "a%0Ab", "dreams", "0")
QUERIES = ("", "?model=", "?model=nonsense", "?model=timm/nonsense", "?look=eyes&model=%00", "?side=-1",
           "?since=" + "9" * 99,
           "?model=efficientnet_lite0&layer=nonsense", "?model=efficientnet_lite0&layer=*&weights=/etc/passwd",
           "?name=" + "y" * 3000)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")


def addresses():
    return [route.path for route in ROUTES if isinstance(route, Route)]


def requests(rng: random.Random):
    """One wrong request: a method, an address, a body."""
    path = rng.choice(addresses())
    for part in ("{name:path}", "{name}", "{queue}", "{id}"):
        path = path.replace(part, rng.choice(NAMES))
    return rng.choice(METHODS), path + rng.choice(QUERIES), rng.choice((None, *BODIES))


def check(studio: Running, method: str, path: str, body: bytes | None) -> int:
    """Ask, and look at the answer: below 500, and where it is an error, one sentence in JSON without a path."""
    status, answer = studio.ask(method, path, body)
    assert status < 500, (method, path, body and body[:60], answer)
    if status >= 400:
        assert isinstance(answer, dict), (method, path, status, answer)
        assert answer["error"], (method, path)
        assert "\n" not in answer["error"]
        assert "/root" not in answer["error"]
        assert str(studio.folder) not in answer["error"]
    return status


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
        check(studio, *requests(rng))
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
