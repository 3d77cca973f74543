"""Every address of the studio, asked in every wrong way: an error is JSON with one sentence, and nothing falls over."""

import asyncio
import json
import random
import socket
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch
from uvicorn import Config
from uvicorn.server import ServerState

from phosphene.errors import SettingsError, UsageError
from phosphene.film.settings import Zoom
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.registry import class_index
from phosphene.recipe.settings import Recipe
from phosphene.studio import prompt
from phosphene.studio.catalogue import catalogue
from phosphene.studio.cost import check_cost, megapixel_steps, weight
from phosphene.studio.films import cost_of
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


LONG = "x" * 60_000
ORDERS = {
    "a size that no float holds": {"settings": {"size": 10**400}},
    "a place that is a number": {"zoom": {"towards": 5}},
    "a place that is nothing": {"zoom": {"towards": None}},
    "a look with a long name": {"look": LONG},
    "a setting with a long name": {"settings": {LONG: 1}},
    "weights with a long name": {"settings": {"weights": LONG}},
    "a field with a long name": {LONG: 1},
    "a weight that goes on and on": {"settings": {"layers": [f"a:{'1' * 120_000}!"]}},
    "a step that goes on and on": {"settings": {"schedules": [f"jitter={'1' * 120_000}!"]}},
    "as many layers as fit in": {"settings": {"layers": [1] * 40_000}},
    "more than an order": {"settings": {"layers": ["a"] * 40_000}},
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("path", ["/api/recipe", "/api/dreams"])
def test_no_order_is_too_much_for_it(studio, path, order):
    began = time.monotonic()
    status, answer = studio.ask("POST", path, {"photograph": "sample:coffee"} | order)
    assert time.monotonic() - began < 5
    assert 400 <= status < 500
    assert len(answer["error"]) < 1000


def test_a_schedule_of_many_steps_is_read_at_once(studio):
    settings = {"steps": 100_000, "schedules": ["jitter=1,2,3", "step_size=0.5,0.25"]}
    began = time.monotonic()
    status, answer = studio.ask("POST", "/api/recipe", {"photograph": "sample:coffee", "settings": settings})
    assert time.monotonic() - began < 1
    assert (status, answer["drive"]) == (200, 0.5 + 99_999 * 0.25)


def test_a_class_whose_number_goes_on_and_on_is_none():
    with pytest.raises(UsageError, match="there is no class number 99"):
        class_index("9" * 5000)
    assert class_index("007") == 7


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_layers_of_a_large_network_take_no_memory(studio):
    def most_memory():
        status = Path(f"/proc/{studio.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    studio.ask("GET", "/api/layers?model=resnet18")
    before = most_memory()
    status, answer = studio.ask("GET", "/api/layers?model=vgg19")  # whose weights have 575 MB
    assert (status, len(answer["layers"]) > 10) == (200, True)
    assert most_memory() < before + 250


def test_numbers_in_addresses_may_have_any_length(studio):
    order = {"photograph": "sample:coffee", "settings": {"steps": 1, "octaves": 1, "size": 40}}
    id = studio.ask("POST", "/api/previews", order)[1]["id"]
    assert studio.ask("GET", f"/api/previews/{id}?since={'9' * 5000}")[0] == 200
    assert studio.ask("GET", f"/api/photographs/sample:coffee/view?side={'9' * 5000}")[0] == 200


@pytest.mark.parametrize("asked", ["bytes=", "bytes=9999999-", "bytes=5-1", "items=0-1"])
def test_a_part_of_a_file_that_is_none_is_an_error_in_json(studio, asked):
    for path in ("/static/app.js", "/api/photographs/sample:coffee/view"):
        status, answer = studio.ask("GET", path, Range=asked)
        assert status in (400, 416)
        assert answer["error"].startswith("The studio cannot answer this: ")


def test_bytes_that_are_no_request_are_an_error_in_json(studio):
    with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as connection:
        connection.sendall(b"hello\r\n\r\n")
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]


def test_an_upload_that_is_broken_off_is_no_fault_of_the_studio(studio):
    """Its terminal stays quiet, which the end of the studio sees to."""

    def wait_until(is_there):
        end_at = time.monotonic() + 10
        while (sorted((studio.folder / ".cache").iterdir()) != kept) is not is_there:
            assert time.monotonic() < end_at
            time.sleep(0.05)

    kept = sorted((studio.folder / ".cache").iterdir())
    head = "POST /api/photographs?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
    with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: 5000\r\n\r\nabc".encode())
        wait_until(True)
    wait_until(False)


def test_more_connections_than_there_may_be_are_told_so(studio):
    silent = [socket.create_connection(("127.0.0.1", studio.port)) for _ in range(prompt.MOST_CONNECTIONS)]
    try:
        assert studio.ask("GET", "/api/pictures") == (429, {"error": "Too many are asking: try again in a minute."})
    finally:
        for connection in silent:
            connection.close()
    end_at = time.monotonic() + 10
    while studio.ask("GET", "/api/pictures")[0] != 200:
        assert time.monotonic() < end_at


GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\na"


def answered(sent, after=0.0, length=0, pauses=(), buffers=1 << 20):
    """What comes back until the connection is ended, taken in parts with pauses before them; a GET is answered after so
    many seconds with so many bytes, a POST never. `buffers` are the bytes that the system holds of an answer."""

    async def app(scope, receive, send):
        if scope["method"] == "GET":
            await asyncio.sleep(after)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
            return await send({"type": "http.response.body", "body": bytes(length)})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def talk():
        config = Config(app, timeout_keep_alive=60)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: prompt.Prompt(config, ServerState(), {}), "127.0.0.1", 0)
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            connection.connect(server.sockets[0].getsockname())
            connection.setblocking(False)
            await loop.sock_sendall(connection, sent)
            answer = b""
            for pause in pauses:
                await asyncio.sleep(pause)
                answer += await loop.sock_recv(connection, length // len(pauses))
            while part := await asyncio.wait_for(loop.sock_recv(connection, 1 << 20), 5):
                answer += part
        server.close()
        return answer

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("patience", "sent"),
    [
        ("HEAD_SECONDS", b""),
        ("HEAD_SECONDS", b"GET / HT"),
        ("HEAD_SECONDS", GET),
        ("HEAD_SECONDS", GET + b"GET / HT"),
        ("BODY_SECONDS", POST),
        ("BODY_SECONDS", GET + POST),
        ("BODY_SECONDS", GET + GET + POST),
    ],
)
def test_a_connection_that_stands_still_is_ended(patience, sent, monkeypatch):
    monkeypatch.setattr(prompt, patience, 0.2)
    assert answered(sent).count(b"HTTP/1.1 200") == sent.count(GET)


@pytest.mark.parametrize("sent", [GET, GET + GET, GET + POST])
def test_a_connection_that_waits_for_an_answer_is_not_ended(sent, monkeypatch):
    monkeypatch.setattr(prompt, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(prompt, "BODY_SECONDS", 0.2)
    assert answered(sent, after=0.6).count(b"HTTP/1.1 200") == sent.count(GET)


def test_an_answer_is_ended_only_where_none_of_it_is_taken(monkeypatch):
    monkeypatch.setattr(prompt, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(prompt, "BODY_SECONDS", 0.4)
    length = 20_000_000
    assert len(answered(GET, length=length, pauses=[1.2])) < length
    assert len(answered(GET, length=40_000, pauses=[1.2], buffers=4096)) < 40_000
    assert len(answered(GET + GET, length=length, after=1.5, pauses=[1.5] + [0.1] * 5)) > 2 * length


def test_a_zoom_costs_its_keys_and_its_frames():
    recipe = Recipe(size=100, steps=1, octaves=1)
    few = Zoom(seconds=1, key_steps=1, key_octaves=1)
    much = cost_of("sample:coffee", recipe, few)
    assert cost_of("sample:coffee", recipe, few.model_copy(update={"key_steps": 1000})) > 200 * much
    slow = Zoom(seconds=3600, rate=1.0001, fps=240, key_steps=1, key_octaves=1)
    assert cost_of("sample:coffee", recipe, slow) > 864_000 * 67 * 100 / 1e6


def test_small_tiles_cost_their_margins():
    whole = Recipe(size="full", octaves=1, steps=1)
    assert megapixel_steps(whole.but(tile=500, halo=0), (1000, 2000)) == 2
    assert megapixel_steps(whole.but(tile=500, halo=250), (1000, 2000)) == 8
    assert megapixel_steps(whole.but(tile=16), (1000, 2000)) > 500 * 2
    assert megapixel_steps(whole.but(tile=500, cuts=("blocks.1.1:16",)), (1000, 2000)) > 500 * 2
    assert megapixel_steps(whole.but(tile=5000), (1000, 2000)) == 2


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


def test_the_page_shows_every_setting_once():
    shown = [name for group in catalogue()["groups"] for name in (*group["settings"], *group["more"])]
    assert sorted(shown) == sorted(Recipe.model_fields)
    assert shown[0] == "size"


def test_other_networks_count_by_their_arithmetic():
    """VGG19 has 19.6 billion multiply-adds for 224 x 224 px (Simonyan and Zisserman 2014), efficientnet_lite0 0.39."""
    assert weight(DEFAULT_MODEL) == 1
    assert weight("vgg19") == pytest.approx(19.6 / 0.39, rel=0.03)
    check_cost([(DEFAULT_MODEL, 100), ("vgg19", 2)], 203)
    with pytest.raises(SettingsError, match=r"this takes 202 megapixel-steps .* this studio takes 150 for an order"):
        check_cost([(DEFAULT_MODEL, 100), ("vgg19", 2)], 150)
    check_cost([("vgg19", 1e9)], None)
