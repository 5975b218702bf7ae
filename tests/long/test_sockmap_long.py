"""The relay in the kernel at length (``make test-long``)."""

from __future__ import annotations

import threading
import time
from itertools import combinations_with_replacement

import pytest

from gameproxy.framing import FORMATS
from gameproxy.relay.sockmap import SockmapPlane, load, why_not
from tests.real.sockmap_rig import INT32, ODD_FORMATS, session
from tests.real.test_sockmap import BOTH, bodies_of
from tests.real.test_sockmap_streams import MEGABYTE, Receiver, Sender, play_at_random


@pytest.fixture(scope="module", name="plane")
def _plane() -> SockmapPlane:
    why = why_not()
    if why is not None:
        pytest.skip(f"not on this machine: {why}")
    return load(200)


def test_much_both_ways(plane: SockmapPlane) -> None:
    """200 MB both ways at once arrive as they were sent."""
    with session(plane) as one:
        senders = [Sender(end, INT32, 200 * MEGABYTE, i) for i, end in enumerate(one.ends)]
        receivers = [Receiver(end) for end in reversed(one.ends)]
        one.until(lambda: all(pump.ended for pump in one.pumps), longest=100)
        for sender, receiver, lane in zip(senders, receivers, one.pair.lanes, strict=True):
            receiver.join(10)
            assert receiver.received == sender.sent == lane.size
            assert receiver.digest.digest() == sender.digest.digest()


def test_reader_that_stops_for_long(plane: SockmapPlane) -> None:
    """A reader that stops for 10 s makes the sender stop, with little in between, and then gets all of it."""
    with session(plane, buffers=65_536) as one:
        start = threading.Event()
        sender = Sender(one.client, INT32, 100 * MEGABYTE, 1)
        receiver = Receiver(one.server, start)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            one.step()
            time.sleep(0.005)
        assert sender.sent < 2 * MEGABYTE
        start.set()
        one.until(lambda: one.pumps[0].ended, longest=60)
        receiver.join(10)
        assert receiver.digest.digest() == sender.digest.digest()


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("number", range(len(FORMATS) + len(ODD_FORMATS)))
def test_hand_back_anywhere(plane: SockmapPlane, number: int, direction: str) -> None:
    """Lanes of all formats go from the kernel to user space and back at any two bytes of three frames."""
    format = [*FORMATS.values(), *ODD_FORMATS][number]
    stream = b"".join(map(format.encode, bodies_of(format, b"\x10ab", b"", b"\x20c")))
    places = sorted({*range(min(len(stream), 20)), *range(0, len(stream), 40), len(stream)})
    with session(plane, format, resumes=False) as one:
        lane = getattr(one, direction)
        sender, receiver = one.ends if lane is one.to_server else reversed(one.ends)
        for count, (stop, resume) in enumerate(combinations_with_replacement(places, 2), 1):
            sender.sendall(stream[:stop])
            one.until(lambda: not lane.unread)
            one.pair.stop()
            sender.sendall(stream[stop:resume])
            one.until(lambda: not lane.unread)
            one.until(lane.is_drained)
            assert lane.resume() is lane.scanner.holds_nothing
            sender.sendall(stream[resume:])
            one.expect(receiver, stream)
            one.until(lambda wanted=count: lane.frames == 3 * wanted)
            one.until(lane.resume)
        assert lane.size == count * len(stream)


def test_sessions_that_come_and_go(plane: SockmapPlane) -> None:
    """A thousand sessions that come and go leave a hundred others as they are, and nothing behind."""
    frame = INT32.encode(b"\x10" * 64)
    lasting = [session(plane) for _ in range(100)]
    opened = [one.__enter__() for one in lasting]
    try:
        for number in range(1000):
            with session(plane) as one:
                one.client.sendall(frame)
                one.expect(one.server, frame)
            stays = opened[number % 100]
            stays.client.sendall(frame)
            stays.expect(stays.server, frame)
        assert all(one.to_server.frames == 10 for one in opened)
    finally:
        for one in lasting:
            one.__exit__(None, None, None)


@pytest.mark.parametrize("seed", range(100, 400))
def test_lanes_taken_at_any_moment(plane: SockmapPlane, seed: int) -> None:
    """What tests/real has of it, more often."""
    play_at_random(plane, seed)
