"""The limits that the kernel's relay keeps."""

from __future__ import annotations

import time
from typing import Any

import pytest
from twisted.internet import reactor

from gameproxy.limit_counts import LimitCounts
from gameproxy.relay.meter import TokenBucket
from gameproxy.relay.sockmap import Limit, SockmapPlane, Stop, tcp
from gameproxy.steady_time import SteadyTime
from tests.real.sockmap_rig import GAME, session


def bucket(kind: str, limit: Limit, counts: LimitCounts | None = None) -> TokenBucket:
    """A limit of frames or of bytes, of which nothing is used up."""
    counts = LimitCounts() if counts is None else counts
    return TokenBucket(f"{kind}_per_second", kind, limit, SteadyTime(reactor), counts)


def limited(kind: str, **limit: Any) -> dict[str, Any]:
    return {"limits": {kind: bucket(kind, Limit(**limit))}}


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
        one.client.sendall(GAME * 6)  # more than is ever free
        one.until(lambda: one.to_server.ours)
        assert one.to_server.stopped is Stop.FRAMES
        assert (one.to_server.frames, one.to_server.unread) == (6, 6 * len(GAME))
        assert one.to_server.read(999) == GAME * 6


def test_byte_limit(plane: SockmapPlane) -> None:
    """The same of bytes."""
    with session(plane, resumes=False, **limited("bytes", rate=200.0, burst=3 * len(GAME))) as one:
        one.client.sendall(GAME * 3)
        one.expect(one.server, GAME * 3)
        time.sleep(len(GAME) / 200 + 0.005)
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        one.pumps.clear()
        one.client.sendall(GAME * 4)
        one.until(lambda: one.to_server.ours)
        assert one.to_server.stopped is Stop.BYTES
        assert one.to_server.read(999) == GAME * 4


def test_limits_that_only_count(plane: SockmapPlane) -> None:
    """A limit that is not enforced lets all pass, and counts what is beyond it: each unit once."""
    counts = LimitCounts(dict.fromkeys(["frames_per_second", "bytes_per_second"], "dry_run"))
    limits = {
        "frames": bucket("frames", Limit(0.001, 2, enforced=False), counts),
        "bytes": bucket("bytes", Limit(0.001, 40, enforced=False), counts),
    }
    with session(plane, limits=limits) as one:
        one.client.sendall(GAME * 5)
        one.expect(one.server, GAME * 5)
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        assert (one.to_server.frames, one.handed_back) == (6, [])
        assert counts.units == {"frames_per_second": 0, "bytes_per_second": 0}
        one.to_server.count_over()
        assert counts.units == {
            "frames_per_second": 4,
            "bytes_per_second": 6 * len(GAME) - 40,
        }
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        one.to_server.stop()
        assert counts.units["frames_per_second"] == 5
        assert counts.sessions == {"frames_per_second": 1, "bytes_per_second": 1}


@pytest.mark.parametrize("kind", ["frames", "bytes"])
def test_used_up_in_turns(plane: SockmapPlane, kind: str) -> None:
    """What was used up of a limit here is so in the kernel, and what was used up there is so here; also when the kernel
    gets the lane again."""
    size = 1 if kind == "frames" else len(GAME)
    limit = Limit(0.01, 10 * size)
    one_unit = size / limit.rate
    account = bucket(kind, limit)
    account.take(3 * size, 0.0, 0.0)
    with session(plane, limits={kind: account}) as one:
        one.client.sendall(GAME * 2)
        one.expect(one.server, GAME * 2)
        one.pumps.clear()
        one.to_server.stop()
        assert account.ahead == pytest.approx(5 * one_unit, rel=0.001)
        account.take(2 * size, 0.0, 0.0)
        assert one.to_server.resume()
        one.client.sendall(GAME * 3)
        one.expect(one.server, GAME * 3)
        one.client.sendall(GAME)
        one.until(lambda: one.to_server.unread)
        one.to_server.look()
        assert account.ahead == pytest.approx(10 * one_unit, rel=0.001)


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
    limits = {kind: bucket(kind, Limit(1e12, 1e12)) for kind in ("frames", "bytes")}
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
