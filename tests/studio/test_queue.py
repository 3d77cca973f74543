"""The queue by itself, with work that the tests hold back."""

import io
import threading

import pytest
import torch
from PIL import Image

from phosphene.errors import ImageError, UnknownNameError, UsageError
from phosphene.studio.queue import Queue
from phosphene.studio.requests import Compared, Order

ORDER = Order(photograph="sample:coffee")


class Held:
    """Work that waits to be let go, and notes what it did."""

    def __init__(self):
        self.begun, self.go, self.done = threading.Semaphore(0), threading.Semaphore(0), []

    def __call__(self, task):
        self.begun.release()
        self.go.acquire()
        self.done.append(task.id)
        if task.order.look == "broken":
            raise ImageError("it is broken")
        if task.order.look == "ours":
            raise ZeroDivisionError
        return "stopped" if task.stop.is_set() else "done"

    def let_go(self, count=1):
        self.go.release(count)


@pytest.fixture
def work():
    return Held()


@pytest.fixture
def queue(work):
    queue = Queue(work, longest=3, kept=2)
    yield queue
    work.let_go(100)
    queue.close()


def finish(queue, work, task):
    work.let_go()
    while task.state in ("waiting", "dreaming"):
        threading.Event().wait(0.005)


def test_a_last_frame_that_cannot_be_shown_ends_no_queue(queue, work):
    task = queue.add(ORDER)
    task.image = torch.rand(5, 8, 9)  # no picture has five channels
    task.scores.append(1.0)
    finish(queue, work, task)
    after = queue.add(ORDER)
    finish(queue, work, after)
    assert after.state == "done"


def test_the_last_frame_is_there_for_pages_that_look_when_it_is_done(queue, work):
    task = queue.add(ORDER)
    task.image = torch.rand(3, 8, 9)
    task.scores.append(1.0)
    finish(queue, work, task)
    while task.image is not None:
        threading.Event().wait(0.005)
    assert Image.open(io.BytesIO(task.frame())).size == (9, 8)


def test_one_dreams_and_the_others_wait_in_order(queue, work):
    tasks = [queue.add(ORDER) for _ in range(3)]
    work.begun.acquire()
    assert [task.state for task in tasks] == ["dreaming", "waiting", "waiting"]
    assert [queue.ahead_of(task) for task in tasks] == [0, 1, 2]
    for task in tasks:
        finish(queue, work, task)
    assert work.done == [task.id for task in tasks]
    assert queue.unfinished() == []


def test_who_is_stopped_while_waiting_never_begins(queue, work):
    first, second = queue.add(ORDER), queue.add(ORDER)
    work.begun.acquire()
    assert queue.stop(second.id).state == "stopped"
    finish(queue, work, first)
    third = queue.add(ORDER)
    finish(queue, work, third)
    assert work.done == [first.id, third.id]


def test_too_many_are_refused(queue, work):
    queue.add(ORDER)
    work.begun.acquire()
    for _ in range(3):
        queue.add(ORDER)
    with pytest.raises(UsageError, match="3 dreams are waiting already: try again"):
        queue.add(ORDER)


def test_an_error_is_the_task_s_and_the_queue_goes_on(queue, work):
    broken, ours, good = (queue.add(ORDER.model_copy(update={"look": look})) for look in ("broken", "ours", None))
    for task in (broken, ours, good):
        finish(queue, work, task)
    assert (broken.state, broken.error) == ("failed", "it is broken")
    assert ours.error == "internal error: ZeroDivisionError()"
    assert good.state == "done"


def test_the_oldest_are_forgotten(queue, work):
    tasks = []
    for _ in range(5):
        tasks.append(queue.add(ORDER))
        finish(queue, work, tasks[-1])
    with pytest.raises(UnknownNameError, match="before the studio was started, or long ago"):
        queue.task(tasks[0].id)
    assert queue.task(tasks[-1].id) is tasks[-1]


def test_what_waits_is_taken_up_by_the_next_queue(work, tmp_path):
    queue = Queue(work, folder=tmp_path)
    orders = [ORDER, Order(photograph="sample:rocket", look="rings"), Compared(comparison="coffee-1"), ORDER]
    tasks = [queue.add(order) for order in orders]
    work.begun.acquire()
    queue.stop(tasks[3].id)
    (tmp_path / "of-another-version.json").write_text('{"photo": 1}')
    work.let_go()
    queue.close()
    again = Queue(work, folder=tmp_path)
    assert [(task.id, task.order) for task in again.unfinished()] == [(task.id, task.order) for task in tasks[1:3]]
    for task in again.unfinished():
        finish(again, work, task)
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["of-another-version.json"]


def test_closing_stops_what_dreams(work):
    queue = Queue(work)
    task = queue.add(ORDER)
    work.begun.acquire()
    closing = threading.Thread(target=queue.close)
    closing.start()
    assert task.stop.wait(5)
    work.let_go()
    closing.join(5)
    assert task.state == "stopped"
