"""What crowds do, in any size: the short tests and the long ones have the same scenes."""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from tests.real.crowd import PATIENCE, Refused, Town, Visitor, together, until
from tests.real.streams import auth, pause

CAPACITY = 16


async def fill(folder: Path, clients: int, proxies: int) -> None:
    """All come at once, over all proxies, and stay until all are in; then all leave."""
    game = f"capacity = {CAPACITY}\nmax_servers = {clients}"
    async with Town(folder, game, proxies) as town:

        async def play(number: int) -> Visitor:
            visitor = await town.join(f"p{number}", proxy=number)
            await visitor.echo(b"\x10" + str(number).encode())
            return visitor

        visitors = await together(play(number) for number in range(clients))
        assert town.admissions() == Counter(f"p{number}" for number in range(clients))
        assert town.most_present() == min(CAPACITY, clients)
        assert len(town.events("started")) == math.ceil(clients / CAPACITY)
        await town.settled(clients)
        for visitor in visitors:
            visitor.say_close()
        await town.settled(0)
        added = "SELECT sum(connections_added), sum(connections_removed) FROM game_servers"
        assert town.query(added) == [(clients, clients)]
        assert len(town.events("left")) == clients


# How to leave

Leave = Callable[[Visitor], None]
LEAVING: dict[str, Leave] = {
    "close": Visitor.say_close,
    "fin": Visitor.close,
    "rst": Visitor.reset,
}


async def before_auth(visitor: Visitor, name: str) -> None:
    """It has said nothing."""


async def in_auth(visitor: Visitor, name: str) -> None:
    """It has said half of AUTH."""
    visitor.send_raw(b"\0\0\0\x60" + auth(name=name)[:10])


async def just_asked(visitor: Visitor, name: str) -> None:
    """The proxy may still be looking for a slot."""
    visitor.send(auth(name=name))


async def waiting(visitor: Visitor, name: str) -> None:
    """It waits in the queue, or is let in without having waited."""
    visitor.send(auth(name=name))
    await visitor.heard()


async def connecting(visitor: Visitor, name: str) -> None:
    """Its proxy is connecting to a game server: if it has waited it is told so, else that takes a moment."""
    visitor.send(auth(name=name))
    if await visitor.heard() is None:
        while visitor.told[-1][0] != "connecting":
            if await visitor.heard() is not None:
                return


async def a_moment_later(visitor: Visitor, name: str) -> None:
    """It may be anywhere between AUTH and WELCOME."""
    visitor.send(auth(name=name))
    await pause(0.01 + sum(name.encode()) % 17 / 500)


async def relaying(visitor: Visitor, name: str) -> None:
    """It plays."""
    visitor.send(auth(name=name))
    await visitor.welcomed()
    await visitor.echo(b"\x10hello")
    await pause(0.1)


PHASES: list[Callable[[Visitor, str], Awaitable[None]]] = [
    before_auth,
    in_auth,
    just_asked,
    waiting,
    connecting,
    a_moment_later,
    relaying,
]


async def churn(folder: Path, places: int, visits: int, proxies: int = 2) -> None:
    """More clients than there is room for come and go, in every phase and in every way; some stay.

    :param places: how many there are at a time; room is for half of them, and a fifth stays.
    :param visits: how often one leaves for the next, at each place.
    """
    servers = places // 2 // CAPACITY
    game = f"capacity = {CAPACITY}\nmax_servers = {servers}"
    async with Town(folder, game, proxies) as town:
        town.say("slow")
        ways = [(phase, leave) for phase in PHASES for leave in LEAVING.values()]

        async def come_and_go(place: int) -> None:
            for visit in range(visits):
                phase, leave = ways[(place + visit * 5) % len(ways)]
                visitor = await town.connect(place + visit)
                await phase(visitor, f"v{place}-{visit}")
                leave(visitor)
                try:
                    await visitor.rest()
                except Refused as refused:
                    assert refused.code == "protocol_error"

        async def stay(place: int) -> Visitor:
            return await town.join(f"s{place}", place)

        stayers = places // 5
        come_and_gone = together(come_and_go(place) for place in range(places - stayers))
        leaving = Deferred.fromCoroutine(come_and_gone)
        staying = await together(stay(place) for place in range(stayers))
        await leaving
        await town.settled(stayers)
        for place, visitor in enumerate(staying):
            await visitor.echo(b"\x10" + bytes([place % 256]))
        admissions = town.admissions()
        assert max(admissions.values()) == 1
        assert {name for name in admissions if name[0] == "s"} == {f"s{n}" for n in range(stayers)}
        # All the room was used, and no more; a game server too many was not started.
        assert town.most_present() == CAPACITY
        assert len(town.events("started")) == servers
        for visitor in staying:
            visitor.say_close()
        await town.settled(0)


async def in_order(folder: Path, clients: int) -> None:
    """Clients of two proxies, by turns, wait for the one place that there is; each has it for a moment. (How soon the
    next one hears of it, tests/unit/test_farm_queue.py asks under a clock.)"""
    async with Town(folder, "capacity = 1\nmax_servers = 1") as town:
        first = await town.join("first")
        visitors = []
        for number in range(clients):
            visitor = await town.ask(f"p{number}", number)
            await visitor.waits_at(number + 1)
            visitors.append(visitor)

        async def pass_through(visitor: Visitor) -> None:
            await visitor.welcomed()
            visitor.say_close()
            await visitor.rest()

        first.say_close()
        await together(pass_through(visitor) for visitor in visitors)
        admitted = [one["player"].removeprefix("guest:") for one in town.events("admitted")]
        assert admitted == ["first", *(f"p{number}" for number in range(clients))]
        assert town.most_present() == 1
        await town.settled(0)


async def back_off(folder: Path, pauses: int) -> None:
    """Clients of two proxies wait for game servers that fail to start: all that they need at once, then one by one;
    after so many pauses starts succeed again.
    """
    game = "capacity = 1\nmax_servers = 9\nstart_attempts = 50"
    async with Town(folder, game, selection="queue_timeout = 300.0") as town:
        town.say("hold")
        town.say("fail")
        visitors = await together(town.ask(f"p{number}", number) for number in range(6))
        await until(lambda: len(town.events("started")) == 6)
        town.unsay("hold")
        begun = time.time()
        await until(lambda: len(town.events("started")) == 6 + pauses, 2.0 * 2**pauses + PATIENCE)
        await until(lambda: town.states()["closed"] == 6 + pauses)
        town.unsay("fail")
        await together(visitor.welcomed() for visitor in visitors)
        times = [begun, *(float(one["time"]) for one in town.events("started")[6:])]
        gaps = [after - before for before, after in pairwise(times)]
        assert all(gap >= 2**number for number, gap in enumerate(gaps[: pauses + 1])), gaps
        # The last pause brings one that succeeds, and then there are the five others.
        assert len(times) == 1 + pauses + 1 + 5
        assert town.admissions() == Counter(f"p{number}" for number in range(6))


async def nearly_stopped(folder: Path, rounds: int) -> None:
    """A client comes in the very moment in which its game server is to be stopped because nobody is there, so many
    times; at least once it takes the slot at the last moment.

    The database is locked until one proxy waits to retire the game server. Then a client asks at the other proxy, which
    begins to wait later and so looks more often whether the lock is gone: it is first in a third of the rounds.
    """
    game = "capacity = 1\nmax_servers = 2\nstop_when_idle = 0.2"
    stayed = 0
    async with Town(folder, game) as town:
        for _ in range(rounds):
            (await town.join("before", 0)).say_close()
            await town.settled(0)
            with closing(sqlite3.connect(folder / "farm.db", isolation_level=None)) as lock:
                lock.execute("BEGIN IMMEDIATE")
                ready = "SELECT id FROM game_servers WHERE state = 'ready'"
                idle = [id for (id,) in lock.execute(ready)]
                await pause(2.0)
                visitor = await town.ask("late", 1)
                await pause(0.05)
                lock.execute("ROLLBACK")
            stayed += (await visitor.welcomed())["server"] in idle
            await pause(0.5)
            await visitor.echo(b"\x10still there?")
            visitor.say_close()
        assert stayed
        assert not any(one["present"] for one in town.events("asked to stop"))


async def replaced(folder: Path, sessions: int) -> None:
    """A player comes so many times at once, at two proxies: one session is left at the end."""
    async with Town(folder, f"capacity = {sessions}\nmax_servers = 1") as town:

        async def play(number: int) -> str:
            visitor = await town.show(town.ticket("anna"), number)
            try:
                await visitor.welcomed()
                playing.append(visitor)
                return await visitor.closed()
            except Refused as refused:
                return refused.code
            finally:
                if visitor in playing:
                    playing.remove(visitor)

        playing: list[Visitor] = []
        over = [Deferred.fromCoroutine(play(number)) for number in range(sessions)]
        await until(lambda: sum(bool(one.called) for one in over) == sessions - 1)
        await town.settled(1)
        (last,) = playing
        last.say_close()
        codes = await gatherResults(over)
        assert sorted(codes) == ["", *["replaced"] * (sessions - 1)]
        await town.settled(0)
