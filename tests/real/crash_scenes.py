"""What crashes do to a farm of real processes: scenes for short tests and for long ones."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed

from tests.program import Program
from tests.real import crowd
from tests.real.crowd import Refused, Town, Visitor, together, until
from tests.real.streams import CLOSE, StreamEnded, auth, pause

GAME_SERVER = Path(__file__).with_name("crash_game.py")
NOT_BEATEN = 15.0
"""Seconds after which a proxy or a game server that gives no sign of life is believed dead."""
BEATS = 5.0
"""Seconds between signs of life."""


class CrashTown(Town):
    """A town whose game servers print all the time, and whose processes are killed and stopped."""

    def __init__(
        self, folder: Path, capacity: int, servers: int, proxies: int = 1, **settings: str
    ) -> None:
        game = f"capacity = {capacity}\nmax_servers = {servers}\n{settings.pop('game', '')}"
        super().__init__(folder, game, proxies, **settings)
        config = folder / "gameproxy.toml"
        config.write_text(config.read_text().replace(str(crowd.GAME_SERVER), str(GAME_SERVER)))

    async def servers_are_ready(self, number: int) -> None:
        """Until so many game servers are ready; the first client finds the tables made."""
        (await self.join("first")).say_close()
        await until(lambda: len(self.started()) == number)

    async def kill_proxy(self, number: int = 0) -> str:
        """SIGKILL; its id."""
        proxy, _ = self.proxies.pop(number), self.ports.pop(number)
        id = self.proxy_id(proxy)
        await proxy.end("KILL")
        return id

    def proxy_id(self, proxy: Program) -> str:
        """What a proxy is called in the table."""
        pid = proxy.transport.pid
        ((id,),) = self.query("SELECT id FROM proxies WHERE pid = ?", pid)
        return str(id)

    def started(self) -> dict[str, int]:
        """The game servers that are ready, and their pids."""
        return dict(self.query("SELECT id, pid FROM game_servers WHERE state = 'ready'"))

    def slots_of(self, proxy: str) -> int:
        """How many slots a proxy has."""
        ((slots,),) = self.query("SELECT count(*) FROM slots WHERE proxy = ?", proxy)
        return int(slots)

    async def has_no_slots(self, proxy: str, within: float) -> None:
        """Until a proxy has no slots any more."""
        await until(lambda: not self.slots_of(proxy), within)

    async def printing_goes_on(self) -> None:
        """Until every living game server has printed more, into its file."""
        logs = {
            self.folder / "farm.servers" / f"{id}.log": pid for id, pid in self.started().items()
        }
        sizes = {log: log.stat().st_size for log in logs}
        await until(lambda: all(log.stat().st_size > size + 1000 for log, size in sizes.items()))
        for pid in logs.values():
            os.kill(pid, 0)

    def present(self) -> dict[str, int]:
        """How many players each game server says that it has."""
        found: Counter[str] = Counter()
        for one in self.events("admitted"):
            found[one["server"]] += 1
        for one in self.events("left"):
            found[one["server"]] -= 1
        return {server: number for server, number in found.items() if number}

    def connected(self) -> dict[str, int]:
        """How many players each game server has by the table."""
        return dict(
            self.query("SELECT id, connections FROM game_servers WHERE connections + reserved > 0")
        )

    async def in_agreement(self) -> None:
        """Until the game servers and the table agree on who is there."""
        try:
            await until(lambda: self.present() == self.connected(), 10.0)
        except AssertionError:
            raise AssertionError(f"{self.present()}, in the table {self.connected()}") from None


class Churn:
    """Clients that come, play for a moment, leave in one way or another, and come again.

    :ivar welcomed: how many were let in.
    :ivar refused: with which codes others were not.
    :ivar closed: with which codes the proxy ended sessions.
    """

    def __init__(self, town: CrashTown, clients: int) -> None:
        self._town = town
        self._stopped = False
        self.welcomed = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self._clients = [
            Deferred.fromCoroutine(self._come_and_go(number)) for number in range(clients)
        ]

    async def grows(self, number: int) -> None:
        """Until so many more were let in."""
        wanted = self.welcomed + number
        await until(lambda: self.welcomed >= wanted)

    async def stop(self) -> None:
        """Until all have left for good."""
        self._stopped = True
        await gatherResults(self._clients, consumeErrors=True)

    async def _come_and_go(self, number: int) -> None:
        chance = Random(number)
        while not self._stopped:
            if not self._town.ports:
                await pause(0.05)
                continue
            try:
                visitor = await self._town.connect(number)
                try:
                    await self._play(visitor, f"client {number}", chance)
                finally:
                    visitor.reset()
            except Refused as refusal:
                self.refused[refusal.code] += 1
            except (StreamEnded, ConnectError, ConnectionClosed):
                pass  # the proxy is dead, or there is none
            await pause(chance.uniform(0.0, 0.1))

    async def _play(self, visitor: Visitor, name: str, chance: Random) -> None:
        visitor.send(auth(name=name))
        if chance.random() < 0.1:
            await pause(chance.uniform(0.0, 0.02))
            return
        await visitor.welcomed()
        self.welcomed += 1
        for turn in range(chance.randrange(1, 8)):
            visitor.send(b"\x10%d" % turn)
            body = await visitor.body()
            if body[0] == CLOSE:
                self.closed[json.loads(body[1:])["code"]] += 1
                return
            assert body == b"\x10%d" % turn
            await pause(chance.uniform(0.0, 0.3))
        if chance.random() < 0.5:
            visitor.say_close()
            await visitor.rest()


async def killed_and_restarted(
    folder: Path, clients: int, capacity: int, servers: int, kills: int
) -> None:
    """SIGKILL a proxy under churn, again and again, and start it again each time."""
    game = f"min_ready = {servers}"
    async with CrashTown(folder, capacity, servers, game=game) as town:
        await town.servers_are_ready(servers)
        started = town.started()
        churn = Churn(town, clients)
        for _ in range(kills):
            await churn.grows(clients // 2)
            dead = await town.kill_proxy()
            assert town.slots_of(dead) > clients / 10
            await town.printing_goes_on()
            await town.add_proxy()
            await town.has_no_slots(dead, 3.0)
            assert town.started() == started
        await town.printing_goes_on()
        await churn.stop()
        await town.settled(0)
        await town.in_agreement()
        assert town.most_present() <= capacity
        assert not town.events("refused"), "the proxy asked for more than there is room"
        assert len(town.events("started")) == servers
        assert set(churn.refused) <= {"queue_timeout"} and not churn.closed, churn.refused


async def killed_beside_another(folder: Path) -> None:
    """SIGKILL one of two proxies: the other gives its slots back, looks after its servers, and takes its clients."""
    async with CrashTown(folder, capacity=4, servers=3, proxies=2) as town:
        lost = await together(town.join(f"lost {n}", 0) for n in range(6))
        stays = await together(town.join(f"stays {n}", 1) for n in range(4))
        started = town.started()
        dead = await town.kill_proxy(0)
        await town.has_no_slots(dead, BEATS)
        for visitor in lost:
            await visitor.rest()
        again = await together(town.join(f"again {n}") for n in range(8))
        await together(visitor.echo(b"\x10on") for visitor in stays + again)
        assert town.started() == started
        ((owners, other),) = town.query(
            "SELECT count(DISTINCT proxy), max(proxy) FROM game_servers"
        )
        assert (owners, other) == (1, town.proxy_id(town.proxies[0]))
        await town.settled(12)
        await town.in_agreement()
        assert town.most_present() <= 4
        assert not town.events("refused")


async def believed_dead(folder: Path, in_time: bool) -> None:
    """A proxy that was stopped, and removed by another, goes on.

    :param in_time: wait until the other believes it dead; else do in its place what it would do then.
    """
    async with CrashTown(folder, capacity=4, servers=1, proxies=2) as town:
        visitors = await together(town.join(f"first {n}", 0) for n in range(3))
        await town.settled(3)
        stopped = town.proxies[0]
        id = town.proxy_id(stopped)
        os.kill(stopped.transport.pid, signal.SIGSTOP)
        if in_time:
            await pause(NOT_BEATEN - BEATS - 1)
            assert town.slots_of(id) == 3, "too early"
            await town.has_no_slots(id, BEATS + 6)
        else:
            town.query("DELETE FROM slots WHERE proxy = ?", id)
            town.query("DELETE FROM proxies WHERE id = ?", id)
        visitors.append(await town.join("other", 1))
        waiting = await town.ask("waiting", 1)
        await waiting.waits_at(1)
        assert town.events("refused"), "the game server has no room, whatever the table says"
        os.kill(stopped.transport.pid, signal.SIGCONT)
        late = await town.ask("late", 0)
        await late.waits_at(2)
        await until(lambda: town.sums()[1] == 4)
        await town.in_agreement()
        assert town.most_present() == 4
        # One of the first may have had to make room for the one that waited.
        ended = [visitor for visitor in visitors if visitor.received or visitor.over]
        assert len(ended) <= 1
        for visitor in ended:
            assert await visitor.closed() == "internal"
        stay = [visitor for visitor in visitors if visitor not in ended]
        await together(visitor.echo(b"\x10on") for visitor in stay)
        for visitor in stay:
            visitor.say_close()
        for visitor in (waiting, late):
            await visitor.welcomed()
        await town.settled(2)
        await town.in_agreement()
        assert town.most_present() == 4


async def game_server_killed(folder: Path) -> None:
    """SIGKILL a game server: its sessions end with server_lost, its row closes, the others notice nothing."""
    async with CrashTown(folder, capacity=3, servers=2) as town:
        visitors = await together(town.join(f"visitor {n}") for n in range(3))
        ((killed, pid),) = town.started().items()
        others = await together(town.join(f"other {n}") for n in range(2))
        waiting = [await town.ask(f"waiting {n}") for n in range(2)]
        await waiting[1].waits_at(1)
        os.killpg(pid, signal.SIGKILL)
        assert await together(visitor.closed() for visitor in visitors) == ["server_lost"] * 3
        await until(lambda: killed not in town.started())
        assert town.query("SELECT state FROM game_servers WHERE id = ?", killed) == [("closed",)]
        await together(visitor.welcomed() for visitor in waiting)
        await together(visitor.echo(b"\x10on") for visitor in others + waiting)
        assert len(town.events("started")) == 3
        await town.settled(4)


async def game_server_silent(folder: Path) -> None:
    """Stop a game server until it is lost, and let it go on: that ends no session."""
    async with CrashTown(folder, capacity=4, servers=2) as town:
        visitors = await together(town.join(f"visitor {n}") for n in range(2))
        ((silent, pid),) = town.started().items()
        state = "SELECT state, connections FROM game_servers WHERE id = ?"
        os.kill(pid, signal.SIGSTOP)
        try:
            await pause(NOT_BEATEN - BEATS - 1)
            assert town.query(state, silent) == [("ready", 2)], "too early"
            await until(lambda: town.query(state, silent) == [("lost", 2)], BEATS + 6)
            other = await town.join("other")
            assert silent not in town.started()
            assert not any(visitor.over or visitor.received for visitor in visitors)
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: town.query(state, silent) == [("ready", 2)], BEATS + 5)
        await together(visitor.echo(b"\x10on") for visitor in [*visitors, other])
        await town.settled(3)


async def locked(folder: Path, seconds: float) -> None:
    """Lock the database under sessions at two proxies, for longer than they wait for it."""
    async with CrashTown(folder, capacity=2, servers=3, proxies=2) as town:
        visitors = await together(town.join(f"visitor {n}", n) for n in range(4))
        await town.settled(4)
        before = town.started()
        with closing(sqlite3.connect(folder / "farm.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            give_up = reactor.seconds() + seconds
            late = await town.ask("late")
            try:
                await late.welcomed()
            except Refused as refusal:
                assert (refusal.code, refusal.error["retry_after"] > 0) == ("internal", True)
            else:
                raise AssertionError("it was let in")
            visitors.pop().say_close()
            while reactor.seconds() < give_up:
                await together(visitor.echo(b"\x10on") for visitor in visitors)
                await pause(0.2)
            other.execute("ROLLBACK")
        await town.settled(3)
        assert town.started() == before
        visitors.append(await town.join("late"))
        await together(visitor.echo(b"\x10on") for visitor in visitors)
        ((proxies,),) = town.query("SELECT count(*) FROM proxies")
        assert proxies == 2
        await town.settled(4)
        await town.in_agreement()
