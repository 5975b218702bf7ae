"""gameproxy.auth.passwords.HashingThreads, with a real reactor and real threads"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from gameproxy.auth import HashingThreads
from gameproxy.reasons import CloseReason, Refusal


@pytest.fixture
def threads() -> Iterator[HashingThreads]:
    """Two threads, ended after the test."""
    pool = HashingThreads(reactor)
    pool.start()
    yield pool
    pytest_twisted.blockon(pool.stop())


@pytest_twisted.inlineCallbacks
def test_work_is_done_elsewhere(threads: HashingThreads) -> Iterator[Deferred[object]]:
    """The work runs in other threads, at most two, and the answers come in the reactor's thread."""
    here = threading.get_ident()
    both = threading.Barrier(2, timeout=5)

    def work() -> int:
        both.wait()
        return threading.get_ident()

    answers = [threads.run(work) for _ in range(4)]
    for answer in answers:
        answer.addCallback(lambda there: (there, threading.get_ident()))
    found = yield gatherResults(answers)
    assert {home for _, home in found} == {here}
    there = {ident for ident, _ in found}
    assert len(there) == 2
    assert here not in there


@pytest_twisted.inlineCallbacks
def test_failures_come_back(threads: HashingThreads) -> Iterator[Deferred[object]]:
    """What the work raises, the Deferred fails with."""
    with pytest.raises(ZeroDivisionError):
        yield threads.run(lambda: 1 // 0)


@pytest_twisted.inlineCallbacks
def test_stop() -> Iterator[Deferred[object]]:
    """At the end the work under way is finished; what still waits is not begun, and fails."""
    threads = HashingThreads(reactor)
    threads.start()
    started, go_on = threading.Semaphore(0), threading.Event()

    def work() -> str:
        started.release()
        assert go_on.wait(5)
        return "done"

    busy = [threads.run(work) for _ in range(2)]
    waiting = threads.run(lambda: "begun")
    assert all(started.acquire(timeout=5) for _ in busy)
    stopped = threads.stop()
    assert not stopped.called, "it must not hold up the reactor"
    go_on.set()
    assert (yield gatherResults(busy)) == ["done", "done"]
    with pytest.raises(Refusal) as refusal:
        yield waiting
    assert refusal.value.reason is CloseReason.DRAINING
