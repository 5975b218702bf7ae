"""Relays at length, on every plane: much, long, and many."""

from __future__ import annotations

from hashlib import sha256

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.real.relay_peers import (
    BOTH,
    PLANES,
    Peer,
    come_and_go,
    flood,
    numbered,
    reaches,
    relaying,
    settled,
)

pytestmark = [pytest.mark.parametrize("plane", PLANES), pytest.mark.timeout(300)]


@pytest.mark.parametrize("small", [False, True])
@pytest_twisted.ensureDeferred
async def test_200_megabytes(plane: str, small: bool) -> None:
    """200 MB both ways at once, through readers that stop again and again, arrive complete and in order."""
    async with relaying(plane, stall_timeout=30.0, small=small) as session:
        await flood(session, 200_000_000)


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@pytest_twisted.ensureDeferred
async def test_ten_seconds_without_reading(plane: str, reader: str, writer: str) -> None:
    """From a side that reads nothing for ten seconds no more is kept than buffers hold; then all of it arrives."""
    async with relaying(plane, stall_timeout=30.0, small=True) as session:
        slow: Peer = getattr(session, reader)
        fast: Peer = getattr(session, writer)
        slow.transport.pauseProducing()
        sent, slow.digest = sha256(), sha256()
        fast.send_all(numbered(50_000_000, sent))
        stopped_at = await settled(lambda: fast.sent)
        await deferLater(reactor, 10.0)
        assert fast.sent == stopped_at < 2_000_000
        slow.transport.resumeProducing()
        await reaches(lambda: slow.size, 50_000_000)
        await reaches(lambda: slow.size, fast.sent)
        assert slow.digest.digest() == sent.digest()


@pytest_twisted.ensureDeferred
async def test_a_thousand_come_and_go(plane: str) -> None:
    """1,000 sessions begin and end in every way while 100 stream."""
    await come_and_go(plane, streaming=100, sessions=1000, at_once=20)
