"""Twenty visitors at once, on loopback only: all are served in order, nothing is lost, memory stays flat."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phosphene import imagefile
from phosphene.recipe.provenance import from_toml

VISITORS = 20
SECONDS = 240

pytestmark = pytest.mark.slow


def visit(studio, seed):
    """Ask for a dream, look at it as it grows, and return its last report."""
    order = {"photograph": "sample:coffee", "settings": {"size": 64, "steps": 2, "octaves": 1, "seed": seed}}
    status, report = studio.ask("POST", "/api/dreams", order)
    assert status == 201
    end = time.monotonic() + SECONDS
    while report["state"] in ("waiting", "dreaming"):
        assert time.monotonic() < end, "served within the time"
        time.sleep(0.1)
        report = studio.ask("GET", f"/api/dreams/{report['id']}")[1]
        if report["state"] == "dreaming" and report["steps_done"]:
            studio.ask("GET", f"/api/dreams/{report['id']}/frame")
    return report


def all_visit(studio, first):
    with ThreadPoolExecutor(VISITORS) as visitors:
        return list(visitors.map(lambda seed: visit(studio, seed), range(first, first + VISITORS)))


def test_twenty_visitors_at_once(studio):
    for _ in range(3):  # until threads and caches are there, and freed memory is used again
        all_visit(studio, 0)
    memory = studio.memory()
    reports = [report for round_ in (1, 2) for report in all_visit(studio, round_ * VISITORS)]
    assert studio.memory() < memory + 60  # it goes up and down by 30
    assert [report["state"] for report in reports] == ["done"] * 2 * VISITORS
    names = [report["picture"] for report in reports]
    assert len(set(names)) == 2 * VISITORS
    seeds = {from_toml(imagefile.read_recipe(studio.folder / name))[0].seed for name in names}
    assert seeds == set(range(VISITORS, 3 * VISITORS)), "every visitor's own dream is in the folder"


def test_the_queue_is_served_in_the_order_in_which_it_came(studio):
    order = {"photograph": "sample:coffee", "settings": {"size": 48, "steps": 1, "octaves": 1}}
    tasks = [studio.ask("POST", "/api/dreams", order)[1]["id"] for _ in range(VISITORS)]
    ahead = [studio.ask("GET", f"/api/dreams/{task}")[1]["ahead"] for task in tasks]
    assert ahead == sorted(ahead)
    end = time.monotonic() + SECONDS
    while studio.ask("GET", "/api/dreams")[1]:
        assert time.monotonic() < end
        time.sleep(0.1)
    pictures = [studio.ask("GET", f"/api/dreams/{task}")[1]["picture"] for task in tasks]
    written = [(studio.folder / name).stat().st_mtime_ns for name in pictures]
    assert written == sorted(written)
