"""Crowds at several proxies, short: real processes, sockets and database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.real import crowd_scenes
from tests.real.crowd import Refused, Town, together, until
from tests.real.streams import auth, frame, pause

ONE_PLACE = "capacity = 1\nmax_servers = 1"


@pytest.mark.parametrize("proxies", [1, 2])
@pytest_twisted.ensureDeferred
async def test_everybody_gets_in_once(tmp_path: Path, proxies: int) -> None:
    """A crowd that comes at once: each client gets in exactly once, on no more game servers than it needs, none of
    which ever has more than it has room for; the table's sums are right."""
    await crowd_scenes.fill(tmp_path, 300, proxies)


@pytest_twisted.ensureDeferred
async def test_start_failed_only_when_all_fail(tmp_path: Path) -> None:
    """Who waits for starts of which some fail waits on and gets in; when all fail, all are told ``start_failed``."""
    async with Town(tmp_path, "capacity = 1\nmax_servers = 3\nstart_attempts = 2") as town:
        town.say("hold")
        visitors = [await town.ask(f"p{number}", number) for number in range(3)]
        await until(lambda: len(town.events("started")) == 3)
        bad = [one["server"] for one in town.events("started")[:2]]
        for server in bad:
            town.say(f"fail-{server}")
        good = town.events("started")[2]["server"]
        town.say(f"hold-{good}")
        town.unsay("hold")
        await until(lambda: town.states() == {"closed": 2, "starting": 1})
        await pause(0.3)
        town.unsay(f"hold-{good}")
        await together(visitor.welcomed() for visitor in visitors)
        assert len(town.events("started")) == 5
        for visitor in visitors:
            visitor.say_close()
        town.say("fail")
        for (pid,) in town.query("SELECT pid FROM game_servers WHERE state = 'ready'"):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: town.states() == {"closed": 5})
        late = [await town.ask(f"late{number}", number) for number in range(2)]
        for visitor in late:
            with pytest.raises(Refused) as refused:
                await visitor.welcomed()
            assert refused.value.code == "start_failed"
        await town.settled(0)


# Waiting


@pytest_twisted.ensureDeferred
async def test_admitted_in_order_of_arrival(tmp_path: Path) -> None:
    """The queue is one for both proxies, first come, first served."""
    await crowd_scenes.in_order(tmp_path, 30)


@pytest_twisted.ensureDeferred
async def test_told_every_position(tmp_path: Path) -> None:
    """STATUS tells each who waits its position, and again when it has changed and only then: when one in the middle
    leaves, those behind it move up; when the first gets in, all do. Those who wait are at two proxies."""
    async with Town(tmp_path, ONE_PLACE) as town:
        first = await town.join("first")
        visitors = []
        for number in range(1, 6):
            visitor = await town.ask(f"p{number}", number)
            await visitor.waits_at(number)
            visitors.append(visitor)
        one, two, three, four, five = visitors
        three.reset()
        await four.waits_at(3)
        await five.waits_at(4)
        first.say_close()
        await one.welcomed()
        await two.waits_at(1)
        await four.waits_at(2)
        await five.waits_at(3)
        assert one.told == [("queued", 1), ("connecting", None)]
        assert two.told == [("queued", 2), ("queued", 1)]
        assert four.told == [("queued", 4), ("queued", 3), ("queued", 2)]
        assert five.told == [("queued", 5), ("queued", 4), ("queued", 3)]


@pytest_twisted.ensureDeferred
async def test_queue_full(tmp_path: Path) -> None:
    """The queue's size is that of all proxies; who is turned away may show the same ticket again, anywhere."""
    async with Town(tmp_path, ONE_PLACE, selection="queue_size = 2") as town:
        first = await town.join("first")
        waiting = []
        for number in range(2):
            visitor = await town.ask(f"p{number}", number)
            await visitor.waits_at(number + 1)
            waiting.append(visitor)
        ticket = town.ticket("anna")
        for proxy in range(2):
            turned_away = await town.show(ticket, proxy)
            with pytest.raises(Refused) as refused:
                await turned_away.welcomed()
            assert refused.value.code == "queue_full"
            assert refused.value.error["retry_after"] > 0
        first.say_close()
        await waiting[0].welcomed()
        anna = await town.show(ticket, 1)
        await anna.waits_at(2)
        again = await town.show(ticket, 0)
        with pytest.raises(Refused) as refused:
            await again.welcomed()
        assert refused.value.code == "auth_failed"


@pytest_twisted.ensureDeferred
async def test_queue_timeout(tmp_path: Path) -> None:
    """Who has waited for queue_timeout is refused; who came later moves up and gets in."""
    async with Town(tmp_path, ONE_PLACE, selection="queue_timeout = 2.4") as town:
        first = await town.join("first")
        began = reactor.seconds()
        one = await town.ask("one", 0)
        await pause(1.2)
        two = await town.ask("two", 1)
        with pytest.raises(Refused) as refused:
            await one.welcomed()
        assert refused.value.code == "queue_timeout"
        assert reactor.seconds() - began >= 2.4
        await two.waits_at(1)
        first.say_close()
        await two.welcomed()
        assert two.told == [("queued", 2), ("queued", 1), ("connecting", None)]


# Duplicates


@pytest_twisted.ensureDeferred
async def test_replaced_at_the_other_proxy(tmp_path: Path) -> None:
    """Who comes again at another proxy is in at once, and within a second the first session is told ``replaced``,
    whether it plays or waits."""
    async with Town(tmp_path, "capacity = 2\nmax_servers = 1") as town:
        took = []
        for number in range(2):
            old = await town.show(town.ticket(f"p{number}"), 0)
            await old.welcomed()
            began = reactor.seconds()
            new = await town.show(town.ticket(f"p{number}"), 1)
            assert (await new.welcomed())["player"] == f"p{number}"
            assert await old.closed() == "replaced"
            took.append(reactor.seconds() - began)
            new.say_close()
            await town.settled(0)
        assert min(took) < 1.0
        players = [await town.join(f"player{number}", number) for number in range(2)]
        waits = await town.show(town.ticket("anna"), 0)
        await waits.waits_at(1)
        anna = await town.show(town.ticket("anna"), 1)
        with pytest.raises(Refused) as refused:
            await waits.welcomed()
        assert refused.value.code == "replaced"
        await anna.waits_at(1)
        players[0].say_close()
        await anna.welcomed()


@pytest_twisted.ensureDeferred
async def test_many_times_the_same_player(tmp_path: Path) -> None:
    """However often a player comes at once, at two proxies: with ``replace`` exactly one session is left."""
    await crowd_scenes.replaced(tmp_path, 12)


@pytest_twisted.ensureDeferred
async def test_refused_at_the_other_proxy(tmp_path: Path) -> None:
    """With ``refuse``, of sessions of one player that begin at once exactly one gets in, and nobody else does at any
    proxy until it has left."""
    async with Town(
        tmp_path, "capacity = 9\nmax_servers = 1", auth='duplicates = "refuse"'
    ) as town:

        async def play(number: int) -> str:
            visitor = await town.show(town.ticket("anna"), number)
            try:
                await visitor.welcomed()
            except Refused as refused:
                return refused.code
            inside.append(visitor)
            return "in"

        inside = []
        codes = await together(play(number) for number in range(9))
        assert sorted(codes) == ["already_connected"] * 8 + ["in"]
        assert [await play(number) for number in range(2)] == ["already_connected"] * 2
        await inside[0].echo(b"\x10undisturbed")
        inside[0].reset()
        await town.settled(0)
        assert await play(1) == "in"


GHOST = """
import socket, sys, time
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream.sendall(bytes.fromhex(sys.argv[2]))
while b'"session"' not in stream.recv(65536):
    pass
print("in", flush=True)
time.sleep(300)
"""


@pytest_twisted.ensureDeferred
async def test_ghosts_block_nobody(tmp_path: Path) -> None:
    """A client that has stopped, or that never reads what comes, does not keep its player from the only place, not even
    for as long as a peer may go without progress (``stall_timeout``, 30 s)."""
    async with Town(tmp_path, ONE_PLACE) as town:
        body = auth(mechanism="ticket", name=None, ticket=town.ticket("anna"))
        ghost = subprocess.Popen(
            [sys.executable, "-c", GHOST, f"{town.ports[0]}", frame(body).hex()],
            stdout=subprocess.PIPE,
        )
        try:
            await town.settled(1)
            ghost.send_signal(signal.SIGSTOP)
            anna = await town.show(town.ticket("anna"), 1)
            await anna.welcomed()
        finally:
            ghost.kill()
            ghost.communicate()
        anna.stop_reading()
        for _ in range(200):
            anna.send(b"\x10" + bytes(100_000))
        await pause(0.5)
        began = reactor.seconds()
        again = await town.show(town.ticket("anna"), 0)
        await again.welcomed()
        assert reactor.seconds() - began < 10, "as long as stall_timeout"
        await again.echo(b"\x10hello")
        assert town.most_present() == 1
        anna.reset()


@pytest_twisted.ensureDeferred
async def test_proxy_that_has_stopped_blocks_nobody(tmp_path: Path) -> None:
    """A player whose proxy does nothing any more gets in at another, where there is room."""
    async with Town(tmp_path, "capacity = 2\nmax_servers = 1") as town:
        old = await town.show(town.ticket("anna"), 0)
        await old.welcomed()
        await town.settled(1)
        await pause(0.1)  # in a transaction it would keep the database locked
        town.proxies[0].transport.signalProcess(signal.SIGSTOP)
        anna = await town.show(town.ticket("anna"), 1)
        await anna.welcomed()
        town.proxies[0].transport.signalProcess(signal.SIGCONT)
        assert await old.closed() == "replaced"
        await anna.echo(b"\x10hello")
