"""Floods at length: ten thousand connections of each kind in twenty seconds, as the complaints of other proxies'
users have them, and what becomes of those who play meanwhile."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientCreator

from tests.program import Program
from tests.real.crowd import PATIENCE, Town, Visitor, together, until
from tests.real.streams import auth, pause

FLOOD = Path(__file__).with_name("flood.py")
SECONDS = int(os.environ.get("FLOOD_SECONDS", "20"))
CONNECTIONS = 500 * SECONDS
PLAYERS, FRAMES_A_SECOND = 25, 20
UNDER_WAY = 10
"""Frames of one player that are not back yet at most: those of half a second."""
QUIET = 5.0
"""Seconds before the flood, and after it, in which is measured what the rate is without."""
MEMORY = (1000 + 256) * 20 * 1024
"""Bytes that a flood may take: for as many sessions without AUTH as there may be, and as many as are told that there
is no room. Each flood has eight times as many."""
LIMITS = '[limits.connections_per_second]\nmode = "enforce"\nrate = 2\nburst = 10'
WITHIN, BEYOND = 2500, 20
"""From how many networks a flood comes whose connections are within the limit, each four, and far beyond it, each five
hundred."""


class Player(Visitor):
    """An honest client: sends numbered frames when they are due, unless too many are under way, and counts what comes
    back. So who is kept waiting plays more slowly.

    :ivar back: how many have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = self.back = 0
        self._plays = False

    def play(self) -> None:
        """What comes from now on are echoes."""
        self._plays = True

    def send_until(self, number: int) -> None:
        """Send the frames that are due."""
        while self.sent < min(number, self.back + UNDER_WAY):
            self.send(b"\x10%08d" % self.sent)
            self.sent += 1

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        while self._plays and len(self.received) >= 13:
            assert self.received[:13] == b"\0\0\0\x09\x10%08d" % self.back
            del self.received[:13]
            self.back += 1


class Players:
    """Those who play, steadily, whatever happens."""

    def __init__(self, players: list[Player]) -> None:
        self.all = players
        self._began = reactor.seconds()
        self._stopped = False
        for player in players:
            player.play()
        self._playing = Deferred.fromCoroutine(self._play())

    async def _play(self) -> None:
        while not self._stopped:
            due = int((reactor.seconds() - self._began) * FRAMES_A_SECOND)
            for player in self.all:
                player.send_until(due)
            await pause(0.5 / FRAMES_A_SECOND)

    def back(self) -> int:
        """How many frames have come back."""
        return sum(player.back for player in self.all)

    async def stop(self) -> None:
        """Send no more; all that was sent comes back."""
        self._stopped = True
        await self._playing
        await until(lambda: all(player.back == player.sent for player in self.all))
        assert not any(player.over or player.received for player in self.all)


class Rates:
    """Frames a second that come back.

    :ivar values: of each stretch of time.
    """

    def __init__(self, players: Players) -> None:
        self._players = players
        self.values: list[float] = []
        self.begin()

    def begin(self) -> None:
        """A stretch begins."""
        self._since = reactor.seconds(), self._players.back()

    def end(self) -> None:
        """It ends, and the next begins."""
        time, back = self._since
        self.begin()
        self.values.append((self._since[1] - back) / (self._since[0] - time))


class FloodedTown(Town):
    """One proxy, with its log in JSON."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            f"capacity = {PLAYERS + 5}\nmax_servers = 1",
            1,
            # In the kernel frames would pass whatever the proxy does.
            proxy='relay = "epoll"',
            selection=f'[log]\njson_file = "proxy.jsonl"\n{LIMITS}',
        )

    async def player(self, number: int) -> Player:
        """A client that is in the game."""
        creator = ClientCreator(reactor, Player)
        # The limit is of networks, and these are as many as that they are within it.
        address = (f"127.200.{number}.1", 0)
        player: Player = await creator.connectTCP(
            "127.0.0.1", self.ports[0], timeout=PATIENCE, bindAddress=address
        )
        player.send(auth(name=f"player {number}"))
        await player.welcomed()
        return player

    def memory(self) -> int:
        """Bytes of memory of the proxy."""
        status = Path(f"/proc/{self.proxies[0].transport.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in (self.folder / "proxy.jsonl").read_text().splitlines()]


def kinds(lines: list[dict[str, Any]]) -> dict[tuple[str, ...], list[float]]:
    """When lines of each kind were logged, of those that a flood can cause."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for line in lines:
        kind = tuple(str(line.get(key)) for key in ("namespace", "level", "event", "reason"))
        found[kind].append(datetime.fromisoformat(line["time"]).timestamp())
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("networks", [WITHIN, BEYOND], ids=["within limits", "beyond limits"])
@pytest.mark.parametrize("kind", ["junk", "slow_auth", "connect_and_close"])
@pytest_twisted.ensureDeferred
async def test_flood(tmp_path: Path, kind: str, networks: int) -> None:
    """The log has at most a line a second of each kind, memory stays within bounds, and who plays keeps four fifths of
    his frames a second at least, and his session."""
    async with FloodedTown(tmp_path) as town:
        players = Players(await together(town.player(number) for number in range(PLAYERS)))
        rates = Rates(players)
        await pause(1.0)
        before, most = town.memory(), 0
        rates.begin()
        await pause(QUIET)
        rates.end()
        logged = len(town.lines())
        flood = Program(
            [sys.executable, "-I", "-S", str(FLOOD), kind]
            + [str(each) for each in (town.ports[0], SECONDS, CONNECTIONS, networks)],
            tmp_path,
        )
        await flood.says("begun")
        rates.begin()
        while not flood.ended.called:
            await pause(0.2)
            most = max(most, town.memory())
        rates.end()
        made = json.loads(flood.output.splitlines()[-1])
        await pause(QUIET)
        rates.end()
        lines = town.lines()[logged:]
        await players.stop()
        first, flooded, last = rates.values
        print(f"\n{kind}, {networks} networks: {made}")
        print(f"frames a second: {first:.0f}, flooded {flooded:.0f}, {last:.0f}")
        print(
            f"memory: {before / 2**20:.1f} MiB, most {most / 2**20:.1f}, after {town.memory() / 2**20:.1f}"
        )
        for one, times in kinds(lines).items():
            print(f"{len(times)} lines {one}")
        assert made["made"] == CONNECTIONS
        assert flooded >= 0.8 * (first + last) / 2
        assert most - before < MEMORY and town.memory() - before < MEMORY
        for one, times in kinds(lines).items():
            apart = [later - earlier for earlier, later in pairwise(times)]
            assert not apart or min(apart) > 0.9, one
        assert len(lines) < 10 * (made["seconds"] + 2 * QUIET)
        assert len(kinds(lines)) >= 1
        for player in players.all:
            player.say_close()
        await town.settled(0)
