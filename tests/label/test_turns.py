"""Who runs when: one at a time, readers first, and all end with the server."""

from __future__ import annotations

import threading
import time

import pytest

from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.label.turns import Turns

pytestmark = pytest.mark.timeout(30)


def wait_until(true) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_reader_comes_between_two_steps_of_the_work_behind():
    turns, order, started, reading = Turns(), [], threading.Event(), threading.Event()

    def read() -> None:
        started.wait()
        reading.set()
        with turns.reader():
            order.append("reader")

    thread = threading.Thread(target=read)
    thread.start()
    with turns.behind():
        order.append("step 1")
        turns.give_way()  # nobody waits
        order.append("step 2")
        started.set()
        reading.wait()
        wait_until(lambda: turns._readers)
        turns.give_way()
        order.append("step 3")
    thread.join()
    assert order == ["step 1", "step 2", "reader", "step 3"]


def test_two_readers_run_one_after_the_other():
    turns, inside, most = Turns(), [], []

    def read() -> None:
        with turns.reader():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_the_end_of_the_server_ends_what_runs_and_what_waits():
    turns, refused = Turns(), []

    def wait() -> None:
        with pytest.raises(CaseError, match="E_STOPPED"), turns.reader():
            raise AssertionError
        refused.append(1)

    with turns.behind():
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: turns._readers)
        turns.stop()
        thread.join()
        with pytest.raises(CaseError, match="E_STOPPED: the server ends - start it again"):
            turns.check()
    assert refused == [1]


def test_an_error_frees_the_turn():
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.reader():
        _ = 1 / 0
    with turns.behind(), pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    with turns.reader():
        pass
