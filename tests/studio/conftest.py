"""A studio in a process of its own, and a real browser in front of it."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from phosphene import apart, imagefile
from phosphene.dreaming.resample import resize


@pytest.fixture(autouse=True, scope="module")
def read_here_again() -> Iterator[None]:
    """A studio within this process reads pictures apart; what is tested after it does not."""
    yield
    apart.decode_apart(False)


@dataclass(frozen=True)
class Running:
    """A studio that runs: where it is, its folder and its process."""

    address: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.address.rstrip("/").rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send one request as the page would, unless headers say otherwise; return status and answer."""
        own = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, data, own | given)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, json.loads(answer) if "json" in response.headers["content-type"] else answer

    def memory(self) -> int:
        """Megabytes that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def start(folder: Path, *arguments: str) -> Running:
    command = [sys.executable, "-c", "from phosphene.cli import main; main()", "studio", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--folder", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TORCH_HOME": str(folder / "no-weights-here")},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("The studio is at http://"), process.communicate()[1]
    return Running(line.split()[-1], folder, process)


def end(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    assert running.process.stderr is not None
    said = running.process.communicate(timeout=30)[1]
    assert "Traceback" not in said, said
    assert "Warning" not in said, said


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("studio") / "dreams")
    yield running
    end(running)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small photographs, so that full size is quick."""
    folder = tmp_path_factory.mktemp("photographs")
    sizes = {"coffee": (64, 96), "chelsea": (60, 90), "rocket": (72, 96)}
    for name, size in sizes.items():
        imagefile.write(folder / f"{name}.png", resize(imagefile.read(f"sample:{name}").image, size))
    return {name: folder / f"{name}.png" for name in sizes}


@dataclass
class Noted:
    """What a browser's pages said and asked for; a test names the failures that it expects."""

    errors: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def listen(self, context: Any) -> None:
        context.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", lambda request: self.addresses.append(request.url))

    def check(self, address: str) -> None:
        unexpected = [error for error in self.errors if not any(text in error for text in self.expected)]
        assert unexpected == []
        away = [url for url in self.addresses if not url.startswith((address, f"blob:{address}"))]
        assert away == []


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def context(browser: Any, studio: Running, noted: Noted) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(30_000)
    noted.listen(context)
    yield context
    context.close()
    noted.check(studio.address)


@pytest.fixture
def open_page(context: Any, studio: Running) -> Callable[..., Any]:
    """Open the studio's page in a new tab."""

    def open_at(address: str = "") -> Any:
        page = context.new_page()
        page.goto(studio.address + address)
        page.wait_for_selector("#samples img", state="attached")
        return page

    return open_at


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page()
