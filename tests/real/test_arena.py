"""The arena behind a real proxy, which starts it: with bots, and with a client that sends nonsense"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater

from gameproxy.arena.bots import Crowd
from gameproxy.arena.frames import ArenaFrame, decode_arena, decode_snapshot
from gameproxy.arena.walls import ARENA
from gameproxy.client import Client, End, Guest
from gameproxy.config import parse
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.service import GameProxy
from gameproxy.testing import seeded_entropy
from tests.game_servers import end_game_servers

PLAYING_TIME = 5.0
PATIENCE = 20.0
CONFIG = f"""
    [proxy]
    drain_grace = 0.05
    [auth]
    guests = true
    [[games]]
    name = "arena"
    command = ["{sys.executable}", "-m", "gameproxy.arena"]
    capacity = 8
    max_servers = 2
"""


@asynccontextmanager
async def proxy_in(folder: Path) -> AsyncIterator[int]:
    """A proxy that starts the arena; gives its port."""
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    proxy = GameProxy(parse(CONFIG, folder), reactor, endpoints=[endpoint])
    proxy.startService()
    try:
        await proxy.started
        yield proxy.ports[0].getHost().port
    finally:
        await proxy.stopService()
        end_game_servers(folder / "farm.db")


@pytest_twisted.ensureDeferred
async def test_bots(tmp_path: Path) -> None:
    """Ten bots play for five seconds on two game servers, and none sees what cannot be."""
    troubles: list[str] = []
    async with proxy_in(tmp_path) as port:
        crowd = Crowd(TwistedLoop(reactor), "127.0.0.1", port, seeded_entropy(), troubles.append)
        crowd.add(10)
        statistics = crowd.statistics
        began = reactor.seconds()
        while statistics.visits < 10 and reactor.seconds() - began < PATIENCE:
            await deferLater(reactor, 0.05)
        await deferLater(reactor, PLAYING_TIME)
        await crowd.stop()
    assert troubles == []
    assert (statistics.refused, statistics.cut_off) == ({}, {})
    assert statistics.visits == len(statistics.set_up_times) >= 10
    # Each decides at least every 0.4 s, and nearly all of it comes back, mostly in the next step.
    assert len(statistics.round_trips) > 0.5 * 10 * PLAYING_TIME / 0.4
    assert sorted(statistics.round_trips)[len(statistics.round_trips) // 2] < 0.5


@pytest_twisted.ensureDeferred
async def test_nonsense(tmp_path: Path) -> None:
    """A client gets the field, itself, and 20 snapshots a second; when it sends nonsense it is told so."""
    async with proxy_in(tmp_path) as port:
        session = await Client(TwistedLoop(reactor), "127.0.0.1", port, Guest("ana")).connect()
        assert (await session.receive()) == b"\x12\x00\x01guest:ana"
        assert session.settings is not None
        assert decode_arena(session.settings) == ARENA
        ticks = []
        began = reactor.seconds()
        while reactor.seconds() - began < 1.0:
            body = await session.receive()
            assert body[0] == ArenaFrame.SNAPSHOT
            ticks.append(decode_snapshot(body).tick)
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        assert 3 <= len(ticks) <= 60
        session.send(b"\x10hello")
        ending = await session.ended
        assert (ending.end, ending.code) == (End.CLOSED, "protocol_error")
        assert ending.message.startswith("The arena does not understand this: ")
