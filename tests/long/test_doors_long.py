"""Crashes of a proxy at which clients come in by every door, with limits and bans: what
tests/long/test_crashes_long.py has for plain ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.authority import Authority
from tests.real.crash_scenes import Churn, CrashTown
from tests.real.crowd import PATIENCE, Refused, Visitor
from tests.real.streams import StreamEnded, auth
from tests.real.tls_streams import client_options, folder_of

CLIENTS, CAPACITY, SERVERS, KILLS = 120, 16, 8, 8
PLAIN, TLS, PROXIED = range(3)
"""The doors; each client has one of them."""
BANNED = 250
"""A client whose address is banned, at whatever door it comes."""
SECTIONS = """
[tls]
listen = ["tcp:0:interface=127.0.0.1"]
certificate = "shown.pem"
key = "shown.key"
[proxy_protocol]
listen = ["tcp:0:interface=127.0.0.1"]
trusted = ["127.0.0.1"]
[limits]
ban_after = 3
[limits.connections_per_second]
mode = "enforce"
rate = 20
burst = 60
[limits.sessions_per_address]
mode = "enforce"
rate = 8
[limits.frames_per_second]
mode = "enforce"
rate = 200
"""


class Guest(Visitor):
    """A client by any door."""

    def reset(self) -> None:
        if not self.lost:  # what is lost over TLS cannot be broken once more
            super().reset()


class DoorsTown(CrashTown):
    """A town whose proxy has three doors. Each client has a network of its own."""

    def __init__(self, folder: Path, authority: Authority, **settings: str) -> None:
        super().__init__(folder, CAPACITY, SERVERS, selection=SECTIONS, **settings)
        self._tls: Any = client_options(authority)
        self._doors: tuple[int, ...] = ()

    async def add_proxy(self) -> None:
        await super().add_proxy()
        place = r"127\.0\.0\.1:(\d+)"
        match = await self.proxies[0].says(f"serves .* at {place}, {place}, {place}")
        self._doors = tuple(map(int, match.groups()))

    async def connect(self, proxy: int = 0, door: int | None = None) -> Visitor:
        """A client that has said nothing yet.

        :param proxy: its number.
        :param door: which it takes, if not its own.
        """
        door = proxy % 3 if door is None else door
        visitor = Guest()
        factory: IProtocolFactory = Factory.forProtocol(lambda: visitor)
        if door == TLS:
            factory = TLSMemoryBIOFactory(self._tls, True, factory, reactor)
        source = None if door == PROXIED else (f"127.77.{proxy}.7", 0)
        port = self._doors[door]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, PATIENCE, source)
        await endpoint.connect(factory)
        if door == PROXIED:
            visitor.send_raw(b"PROXY TCP4 127.77.%d.7 198.51.100.2 50000 7777\r\n" % proxy)
        return visitor

    async def turns_away_the_banned(self) -> None:
        """At every door. Where a handshake takes longer than the second that is left to those who are refused, as on a
        busy machine, nothing can be told: then he tries again."""
        for door in (PLAIN, TLS, PROXIED):
            told = None
            while told is None:
                visitor = await self.connect(BANNED, door)
                visitor.send(auth(name="banned"))
                try:
                    raise AssertionError(f"let in: {await visitor.welcomed()}")
                except StreamEnded:
                    continue
                except Refused as refusal:
                    told = refusal.code
            assert told == "banned"

    def admitted(self) -> Counter[int]:
        """How many clients game servers have let in, by their door."""
        names = [one["player"].removeprefix("guest:client ") for one in self.events("admitted")]
        return Counter(int(name) % 3 for name in names if name.isdigit())


@pytest.mark.timeout(400)
@pytest_twisted.ensureDeferred
async def test_killed_with_all_doors_open(tmp_path: Path) -> None:
    """A proxy that is killed again and again under sessions over TLS, behind a balancer and in the clear, all under
    limits, has its slots back each time it starts again. Clients come in by all doors again at once, and no limit
    holds what is gone against them; who is banned stays so."""
    authority = Authority()
    folder_of(authority, tmp_path, shown=authority.issue("play.example"))
    async with DoorsTown(tmp_path, authority, game=f"min_ready = {SERVERS}") as town:
        await town.servers_are_ready(SERVERS)
        started = town.started()
        town.query(
            "INSERT INTO bans (kind, subject, reason, actor, created_at) VALUES ('address', ?, '', '', 0)",
            f"127.77.{BANNED}.0/24",
        )
        churn = Churn(town, CLIENTS)
        for _ in range(KILLS):
            before = town.admitted()
            await churn.grows(CLIENTS // 2)
            while len(town.admitted() - before) < 3:
                await churn.grows(10)
            dead = await town.kill_proxy()
            assert town.slots_of(dead) > CLIENTS / 10
            await town.add_proxy()
            await town.has_no_slots(dead, PATIENCE)
            await town.turns_away_the_banned()
            assert town.started() == started
        await churn.grows(CLIENTS // 2)
        await churn.stop()
        await town.settled(0)
        await town.in_agreement()
        assert town.most_present() <= CAPACITY
        assert not town.events("refused"), "the proxy asked for more than there is room"
        assert set(churn.refused) <= {"queue_timeout"} and not churn.closed, churn.refused
        assert town.query("SELECT count(*) FROM bans") == [(1,)]
