"""What the studio refuses: bad files, huge files, foreign sites, paths outside its folder, strangers."""

import base64
import http.client
import http.server
import struct
import threading
import time
import urllib.request
import zlib
from pathlib import Path

import PIL.Image
import pillow_heif
import pytest

from phosphene.cli import run
from phosphene.studio.guard import FIRST_WAIT, Patience, is_loopback, is_own_host, without_places
from phosphene.studio.routes.request import MAX_BYTES
from studio.conftest import end, start
from studio.words import choose


def chunk(tag: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def bomb() -> bytes:
    """A PNG of a few hundred bytes that declares 30000 x 30000 pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_a_bad_file_is_refused_in_one_sentence_and_nothing_is_kept(page, noted, studio, photographs, tmp_path):
    noted.expected = ("422",)
    choose(page, photographs["coffee"])
    kept = sorted(studio.folder.rglob("photographs/*"))
    cut = photographs["coffee"].read_bytes()[:900]
    for name, data in {"letter.jpg": b"Dear sir", "cut.png": cut, "none.png": b""}.items():
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_selector("#alert.wrong")
        assert page.inner_text("#alert span").count(".") <= 4
        assert "Traceback" not in page.inner_text("#alert")
        page.click("#alert button")
    assert sorted(studio.folder.rglob("photographs/*")) == kept
    assert page.locator("#before").is_visible(), "what was there before is there still"


@pytest.mark.slow
def test_a_picture_of_too_many_pixels_is_refused_undecoded(page, noted, studio, tmp_path):
    noted.expected = ("422",)
    memory = studio.memory()
    (tmp_path / "bomb.png").write_bytes(bomb())
    page.set_input_files("#file", tmp_path / "bomb.png")
    page.wait_for_selector("#alert.wrong >> text=larger than")
    assert studio.memory() < memory + 100


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(studio):
    status, answer = studio.ask("POST", "/api/photographs?name=a.png", None, Content_Length=str(MAX_BYTES + 1))
    assert (status, answer["error"]) == (413, "this is larger than 200 MB: give a smaller file")


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off(studio):
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=20)
    connection.putrequest("POST", "/api/recipe")
    connection.putheader("Origin", studio.address.rstrip("/"))
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        for _ in range(17):  # of 64 kB: just more than may be; the end never comes
            connection.send(b"10000\r\n" + b" " * 2**16 + b"\r\n")
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the studio hung up: as good
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/api/pictures/..%2F..%2Fetc%2Fpasswd/file",
        "/api/pictures/%2Fetc%2Fpasswd/file",
        "/api/pictures/..%2Fsecret.png/file",
        "/api/pictures/.cache/file",
        "/api/pictures/link.png/file",
        "/api/pictures/link.png",
        "/api/photographs/..%2F..%2Fsecret.png/view",
        "/api/photographs/..%5C..%5Csecret.png/view",
        "/static/..%2Fapp.py",
        "/static/%2e%2e/app.py",
    ],
)
def test_nothing_outside_the_folder_can_be_read(studio, path):
    secret = studio.folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    link = studio.folder / "link.png"
    if not link.is_symlink():
        link.symlink_to(secret)
    status, answer = studio.ask("GET", path)
    assert status == 404
    assert b"secret" not in (answer if isinstance(answer, bytes) else b"")


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": "../../secret.png"},
        {"guide": "/etc/passwd"},
        {"weights": "/etc/passwd"},
        {"weights": "../evil.pth"},
    ],
)
def test_settings_name_no_file_outside_the_folder(studio, settings):
    order = {"photograph": "sample:coffee", "settings": settings}
    status, answer = studio.ask("POST", "/api/dreams", order)
    assert status == 404
    assert answer["error"].startswith("there is no ")


def test_the_name_of_a_dropped_file_does_not_say_where_it_goes(studio, photographs):
    name = "..%2F..%2F..%2Ftmp%2F%3Cb%3Eevil.sh%00.png"
    kept = studio.ask("POST", f"/api/photographs?name={name}", photographs["rocket"].read_bytes())[1]["name"]
    assert (studio.folder / "photographs" / kept).is_file()
    assert "/" not in kept
    assert ".." not in kept


def test_strangers_pictures_are_decoded_in_another_process(studio, tmp_path):
    """HEIC's decoder is never loaded into the studio's own, which learns the size, shows the picture and dreams it."""
    pillow_heif.from_pillow(PIL.Image.new("RGB", (64, 48), "red")).save(tmp_path / "a.heic")
    name = studio.ask("POST", "/api/photographs?name=a.heic", (tmp_path / "a.heic").read_bytes())[1]["name"]
    assert studio.ask("GET", f"/api/photographs/{name}/view")[0] == 200
    order = {"photograph": name, "settings": {"size": 48, "steps": 1, "octaves": 1}}
    task = studio.ask("POST", "/api/dreams", order)[1]["id"]
    while (state := studio.ask("GET", f"/api/dreams/{task}")[1]["state"]) in ("waiting", "dreaming"):
        time.sleep(0.1)
    assert state == "done"
    assert "heif" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


def test_another_site_cannot_give_orders(studio):
    order = {"photograph": "sample:coffee", "settings": {"size": 48, "steps": 1}}
    for origin in ("http://evil.example", "null", "", f"http://localhost:{studio.port}", "http://127.0.0.1:1"):
        assert studio.ask("POST", "/api/dreams", order, Origin=origin)[0] == 403
    assert studio.ask("GET", "/api/dreams")[1] == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_have_anything_dreamed_by_asking_for_its_picture(studio, site):
    """A browser says so; another port of this machine is the same site."""
    thumbnail = "/api/thumbnail?model=efficientnet_lite0&layer=blocks.1.1"
    before = sorted(studio.folder.rglob("*"))
    status, answer = studio.ask("GET", thumbnail, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
    assert (status, answer["error"]) == (403, "The studio answers its own page only.")
    assert sorted(studio.folder.rglob("*")) == before
    assert studio.ask("GET", thumbnail, Sec_Fetch_Site="same-origin")[0] == 200
    assert studio.ask("GET", "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7866", "127.0.0.1.evil.example", "", "192.168.0.7"])
def test_a_name_that_was_pointed_here_is_not_answered(studio, host):
    assert studio.ask("GET", "/api/pictures", Host=host)[0] == 403


@pytest.mark.slow
def test_a_page_of_another_site_drives_nothing(browser, studio, tmp_path):
    (tmp_path / "index.html").write_text("<title>evil</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(tmp_path))

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://localhost:{server.server_port}/")
    order = '{"photograph": "sample:coffee", "settings": {"size": 48, "steps": 1}}'
    answers = page.evaluate(
        """async ([address, order]) => {
            const say = (promise) => promise.then((r) => r.type, () => "refused");
            const send = { method: "POST", mode: "no-cors", body: order };
            const picture = new Image();
            picture.src = `${address}api/photographs/sample:coffee/view`;
            return [await say(fetch(`${address}api/pictures`)), await say(fetch(`${address}api/dreams`, send)),
                await picture.decode().then(() => "shown", () => "refused")];
        }""",
        [studio.address, order],
    )
    page.close()
    server.shutdown()
    server.server_close()
    assert answers == ["refused", "refused", "refused"]
    assert studio.ask("GET", "/api/dreams")[1] == []


def test_every_answer_carries_the_policy(studio):
    for path in ("", "static/app.js", "api/pictures", "api/photographs/sample:coffee/view"):
        with urllib.request.urlopen(studio.address + path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_no_other_host_without_a_password(host, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PHOSPHENE_PASSWORD", raising=False)
    assert run(["studio", "--host", host, "--port", "0", "--folder", str(tmp_path)]) == 2
    assert f"{host} can be reached from other machines: give --password as well" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(studio, tmp_path, capsys):
    assert run(["studio", "--port", str(studio.port), "--folder", str(tmp_path)]) == 2
    assert "try --port" in capsys.readouterr().err


@pytest.mark.slow
def test_the_password_is_asked_for_and_known(tmp_path):
    running = start(tmp_path / "dreams", "--host", "0.0.0.0", "--password", "ölçek")
    try:
        know = base64.b64encode("anyone:ölçek".encode()).decode()
        wrong = base64.b64encode(b"anyone:guess").decode()
        assert running.ask("GET", "/api/pictures")[0] == 401
        assert running.ask("GET", "/api/pictures", Authorization=f"Basic {wrong}")[0] == 401
        status, answer = running.ask("GET", "/api/pictures", Authorization=f"Basic {know}")
        assert (status, answer["error"][:24]) == (429, "Too many wrong passwords"), "though it is right"
        time.sleep(FIRST_WAIT)
        assert running.ask("GET", "/api/pictures", Authorization="Basic !")[0] == 401
        time.sleep(2 * FIRST_WAIT)
        assert running.ask("GET", "/api/pictures", Authorization=f"Basic {know}") == (200, [])
        assert running.ask("GET", "/api/pictures", Host="evil.example", Authorization=f"Basic {know}")[0] == 403
    finally:
        end(running)


@pytest.mark.parametrize(
    ("header", "listens_on", "own"),
    [
        ("127.0.0.1:80", "127.0.0.1", True),
        ("localhost:7866", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:7866", "::1", True),
        ("192.168.0.7:7866", "127.0.0.1", False),
        ("192.168.0.7:7866", "0.0.0.0", True),
        ("[fe80::1]:7866", "::", True),
        ("studio.lan:7866", "studio.lan", True),
        ("evil.example:7866", "0.0.0.0", False),
        ("localhost.evil.example", "0.0.0.0", False),
        ("", "0.0.0.0", False),
    ],
)
def test_own_hosts(header, listens_on, own):
    assert is_own_host(header, listens_on) is own


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "lan")))


@pytest.mark.parametrize("asked", ["model=vgg19&look=eyes", "model=resnet50&layer=layer3.2"])
def test_no_thumbnail_fetches_weights(studio, asked):
    status, answer = studio.ask("GET", f"/api/thumbnail?{asked}")
    assert status == 422
    assert "are not on this machine, so there is no preview" in answer["error"]


@pytest.mark.slow
def test_wrong_passwords_are_slowed_whatever_address_a_request_names(tmp_path):
    running = start(tmp_path / "dreams", "--password", "ours")
    wrong = f"Basic {base64.b64encode(b'anyone:guess').decode()}"
    try:
        guesses = [
            running.ask("GET", "/api/pictures", Authorization=wrong, X_Forwarded_For=f"192.0.2.{number}")[0]
            for number in range(5)
        ]
        assert guesses == [401, 429, 429, 429, 429]
    finally:
        end(running)


def test_wrong_passwords_are_slowed_by_address():
    patience = Patience()
    for _ in range(3):
        patience.was_wrong("192.0.2.1")
    assert 1.5 < patience.left("192.0.2.1") <= 2, "twice as long each time"
    assert patience.left("192.0.2.2") == 0
    patience.was_wrong("2001:db8::1")
    assert patience.left("2001:db8::ffff") > 0, "an IPv6 network is one"
    assert patience.left("2001:db8:0:1::1") == 0
    patience.was_right("192.0.2.1")
    assert patience.left("192.0.2.1") == 0
    for number in range(12_000):
        patience.was_wrong(f"10.0.{number // 256}.{number % 256}")
    assert len(patience.waits) == 10_000


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("'my dreams/.cache/tmp1_x/a.png' is broken", "'a.png' is broken"),
        ('"/srv/it\'s/my dreams/photographs/a.png" is broken', '"a.png" is broken'),
        ("in my dreams/comparisons/coffee-1/dreams", "in coffee-1/dreams"),
        ("there is no model called 'timm/photographs/x'", "there is no model called 'timm/photographs/x'"),
        ("a" * 1000, f"{'a' * 400} ... {'a' * 400}"),
        ("there is no file '/srv/dreams/.cache/tmp1/a.png': did", "there is no file 'a.png': did"),
        (
            "from https://pytorch.org/models/x.pth into /root/.cache",
            "from https://pytorch.org/models/x.pth into .cache",
        ),
        ("steps = 3/4 will not do; timm/vit and ~/a/b.png", "steps = 3/4 will not do; timm/vit and b.png"),
    ],
)
def test_visitors_do_not_learn_where_things_are(sentence, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "absolute", lambda path: Path("/srv/it's", path))
    assert without_places(sentence, Path("my dreams")) == told
