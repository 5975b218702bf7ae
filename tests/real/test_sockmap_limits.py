"""The limits that the kernel's relay keeps."""

from __future__ import annotations

import time
from typing import Any

from gameproxy.relay.sockmap import Limit, SockmapPlane, Stop, tcp
from tests.real.sockmap_rig import GAME, session


def limited(kind: str, **limit: Any) -> dict[str, Any]:
    return {"limits": {kind: Limit(**limit)}}


def test_frame_limit(plane: SockmapPlane) -> None:
    """As many frames pass as the limit allows at once, and as come free with time; then the lane is ours, with all of
    the buffer that was too much."""
    with session(plane, resumes=False, **limited("frames", rate=20.0, burst=5)) as one:
        one.client.sendall(GAME * 3)
        one.expect(one.server, GAME * 3)
        one.client.sendall(GAME * 2)
        one.expect(one.server, GAME * 2)
        time.sleep(0.06)  # one more is free
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        one.pumps.clear()
        one.client.sendall(GAME * 2)
        one.until(lambda: one.to_server.ours)
        assert one.to_server.stopped is Stop.FRAMES
        assert (one.to_server.frames, one.to_server.unread) == (6, 2 * len(GAME))
        assert one.to_server.read(99) == GAME * 2


def test_byte_limit(plane: SockmapPlane) -> None:
    """The same of bytes."""
    with session(plane, resumes=False, **limited("bytes", rate=200.0, burst=3 * len(GAME))) as one:
        one.client.sendall(GAME * 3)
        one.expect(one.server, GAME * 3)
        time.sleep(len(GAME) / 200 + 0.005)
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        one.pumps.clear()
        one.client.sendall(GAME)
        one.until(lambda: one.to_server.ours)
        assert one.to_server.stopped is Stop.BYTES
        assert one.to_server.read(99) == GAME


def test_limits_that_only_count(plane: SockmapPlane) -> None:
    """A limit that is not enforced lets all pass, and counts what is beyond it."""
    limits = {
        "frames": Limit(0.001, 2, enforced=False),
        "bytes": Limit(0.001, 40, enforced=False),
    }
    with session(plane, limits=limits) as one:
        one.client.sendall(GAME * 5)
        one.expect(one.server, GAME * 5)
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        assert (one.to_server.frames, one.handed_back) == (6, [])
        assert (one.to_server.frames_over, one.to_server.bytes_over) == (4, 6 * len(GAME) - 40)


def test_extreme_limits(plane: SockmapPlane) -> None:
    """A burst fits whole at any rate, and one more does not."""
    for rate in (1e-9, 0.001, 1.0, 333.3):
        with session(plane, resumes=False, **limited("frames", rate=rate, burst=1)) as one:
            one.client.sendall(GAME)
            one.expect(one.server, GAME)
            one.client.sendall(GAME * 2)
            one.until(lambda one=one: one.to_server.ours)
    with session(plane, resumes=False, **limited("bytes", rate=0.001, burst=7000)) as one:
        one.client.sendall(GAME * 700)
        one.expect(one.server, GAME * 700)
        one.client.sendall(GAME)
        one.until(lambda: one.to_server.ours)
    limits = {"frames": Limit(1e12, 1e12), "bytes": Limit(1e12, 1e12)}
    with session(plane, limits=limits) as one:
        one.client.sendall(GAME * 1000)
        one.expect(one.server, GAME * 1000)
        assert one.to_server.relayed == 1000 * len(GAME)


def test_rates_near_the_limit(plane: SockmapPlane) -> None:
    """Who keeps to the limit is not stopped, however close to it."""
    with session(plane, **limited("frames", rate=2000.0, burst=1)) as one:
        for number in range(1, 201):
            one.client.sendall(GAME)
            while tcp.received(one.to_server.source).size < number * len(GAME):
                pass
            free_at = time.monotonic() + 1 / 1990
            while time.monotonic() < free_at:
                pass
        one.expect(one.server, GAME * 200)
        assert one.to_server.relayed == 200 * len(GAME)
