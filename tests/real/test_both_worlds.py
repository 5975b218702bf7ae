"""What must hold in a simulated world must hold in a real one: the same tests, in both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gameproxy.client import Client, Guest, Refused, Session
from gameproxy.client.reconnecting import sleep
from gameproxy.gameserver import Game, Player, run
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.simulation.clients import Plan
from gameproxy.simulation.live import Live
from gameproxy.simulation.stage import Stage, WorldFailed
from gameproxy.simulation.states import parse_state


def test_counts(world: Stage) -> None:
    """All get to a game server; the farm's counts are theirs, then nobody's."""
    world.hydrate("three_servers")
    clients = world.clients.batch(15)
    world.assert_reached(clients, selection=True, server=True)
    world.farm.assert_counts(connections=15, added=15, removed=0, within=5)
    clients.disconnect_all()
    world.farm.assert_counts(connections=0, added=15, removed=15, within=5)
    world.settle()


def test_play(world: Stage) -> None:
    """A game server is started for who comes first; each frame comes back, in order, and each player leaves in its own
    way."""
    plans = [Plan(frames=8, size=2000, gap=0.01, leaving=how) for how in ("close", "end", "reset")]
    clients = world.clients.make(6, lambda number: plans[number % 3])
    clients.connect_all()
    world.run_until(lambda: all(client.has_ended for client in clients), 30, "all have played")
    assert [client.echoed for client in clients] == [8] * 6
    assert world.farm.counts()["servers"] == 1
    world.farm.assert_counts(connections=0, added=6, removed=6)
    world.settle()


def test_refused_when_full(world: Stage) -> None:
    """One more gets in, two wait in vain, and the next finds the queue full."""
    inside = world.hydrate("nearly_full")
    assert sorted(client.server for client in inside) == ["full"] * 3 + ["nearly"] * 2
    last = world.clients.batch(1)
    world.assert_reached(last, server=True)
    assert last[0].server == "nearly"
    waiting = world.clients.batch(2)
    world.farm.assert_counts(queued=2, connections=6)
    world.assert_ended(world.clients.batch(1), "queue_full")
    world.assert_ended(waiting, "queue_timeout")
    world.farm.assert_counts(queued=0, connections=6, added=6)
    world.settle()


def test_replaced_duplicate(world: Stage) -> None:
    """Who comes a second time ends the first session, whichever proxy has it."""
    world.hydrate("two_proxies")
    first = world.clients.batch(1, player="ada")
    world.assert_reached(first, server=True)
    second = world.clients.batch(1, player="ada")
    assert first[0].address != second[0].address
    world.assert_ended(first, "replaced")
    world.assert_reached(second, server=True)
    world.farm.assert_counts(connections=1, added=2, removed=1)
    world.settle()


def test_banned_and_odd_rows(world: Stage) -> None:
    """Who is banned is told so; rows that somebody has edited to nonsense keep nobody else out."""
    world.hydrate("odd_rows")
    world.assert_ended(world.clients.batch(1, player="mallory"), "banned")
    others = world.clients.batch(3)
    world.assert_reached(others, server=True)
    assert [client.server for client in others] == ["good"] * 3
    world.settle()


def test_server_killed(world: Stage) -> None:
    """Its players are told; who comes after that gets to another, and to itself when it is there again."""
    world.hydrate("three_servers")
    clients = world.clients.batch(5)
    world.assert_reached(clients, server=True)
    (full,) = {client.server for client in clients}
    world.server(full).kill()
    world.assert_ended(clients, "server_lost")
    again = world.clients.batch(10)
    world.assert_reached(again, server=True)
    assert full not in {client.server for client in again}
    world.server(full).start()
    world.run_for(3)  # it rests after a failed dial
    last = world.clients.batch(1)
    world.assert_reached(last, server=True)
    assert last[0].server == full
    world.settle()


def test_started_server_killed(world: Stage) -> None:
    """Another is started for who comes after that."""
    clients = world.clients.batch(3)
    world.assert_reached(clients, server=True)
    world.server(clients[0].server).kill()
    world.assert_ended(clients, "server_lost")
    again = world.clients.batch(3)
    world.assert_reached(again, server=True)
    assert again[0].server != clients[0].server
    world.farm.assert_counts(connections=3, added=6, removed=3)
    world.settle()


def test_proxy_restarted(world: Stage) -> None:
    """A proxy that is killed takes its sessions with it, and no others; when it is there again it serves, and the farm
    knows who is left."""
    world.hydrate("two_proxies")
    clients = world.clients.batch(4)
    world.assert_reached(clients, server=True)
    world.proxies[0].kill()
    world.run_until(lambda: clients[0].has_ended and clients[2].has_ended, 10, "two are out")
    world.proxies[0].start()
    world.run_until(lambda: world.proxies[0].serves, 10, "it serves again")
    world.farm.assert_counts(connections=2)
    again = world.clients.make(2, Plan(stays=True), proxy=0)
    again.connect_all()
    world.assert_reached(again, server=True)
    assert [client.state for client in clients] == ["ended", "playing", "ended", "playing"]
    world.settle()


class Dice(Game):
    """Says who has thrown what."""

    def received(self, player: Player, body: bytes) -> None:
        player.send(b"\x10%s threw a six" % player.name.encode())


DICE = """
[auth]
guests = true

[[games]]
name = "dice"
command = ["dice"]
capacity = 2
max_servers = 2
"""


def test_a_game_of_ones_own(world: Stage) -> None:
    """Any game in Python, played with the client library; its game servers end when they are asked to."""
    world.add_game("dice", Dice, [sys.executable, __file__])
    world.hydrate(parse_state(DICE))
    sessions: list[Session] = []

    async def throw(name: str) -> bytes:
        address = world.proxies[0].address
        client = Client(TwistedLoop(world.clients_reactor), *address, Guest(name))
        async with await client.connect() as session:
            sessions.append(session)
            session.send(b"\x10")
            return await session.receive()

    assert world.wait_for(throw("ann")) == b"\x10guest:ann threw a six"
    assert sessions[0].welcome is not None
    server = sessions[0].welcome.server
    world.server(server).stop()
    world.run_until(lambda: world.farm.servers()[server] == "closed", 10, "it has ended")
    assert world.wait_for(throw("bob")) == b"\x10guest:bob threw a six"
    with pytest.raises(Refused, match="unknown_game"):
        world.wait_for(connect(world, "chess"))
    with pytest.raises(WorldFailed, match="what was to be waited for"):
        world.wait_for(sleep(TwistedLoop(world.clients_reactor), 600), within=0.1)
    world.settle()


async def connect(world: Stage, game: str) -> Session:
    """A client that wants a game."""
    loop = TwistedLoop(world.clients_reactor)
    return await Client(loop, *world.proxies[0].address, Guest("eve", game=game)).connect()


HANGING = """
[auth]
guests = true

[selection]
handshake_timeout = 0.5

[[games]]
name = "echo"
command = ["echo"]
capacity = 4
max_servers = 2

[[started]]
game = "echo"
condition = "hanging"

[[clients]]
"""


def test_started_server_that_hangs(world: Stage) -> None:
    """Who comes is sent elsewhere; who was in plays on when it goes on."""
    (inside,) = world.hydrate(parse_state(HANGING))
    others = world.clients.batch(2)
    world.assert_reached(others, server=True)
    assert inside.server not in {other.server for other in others}
    assert inside.state == "playing"
    world.server(inside.server).go_on()
    world.run_until(lambda: inside.echoed == 3, 10, "its frames come back")
    world.settle()


def test_what_does_not_hold(world: Stage) -> None:
    """It fails the test, which hears what was found."""
    world.hydrate("three_servers")
    world.assert_reached(world.clients.batch(2), server=True)
    with pytest.raises(WorldFailed, match=r"connections.: 3.*it is .*connections.: 2"):
        world.farm.assert_counts(connections=3, within=0.1)
    with pytest.raises(WorldFailed, match=r"not within .* 3 clients reach a game server"):
        world.run_until(lambda: False, 0.1, "3 clients reach a game server")


def runs(pid: int) -> bool:
    """Whether a process runs: not if only whoever adopted it has not asked yet how it ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_live_leaves_nothing() -> None:
    """Whatever a test did not tidy up is gone with its world: clients, proxies, hung game servers, and the folder."""
    world = Live()
    world.hydrate("two_proxies")
    clients = world.clients.batch(5)  # four fit the one, a game server is started for the fifth
    world.assert_reached(clients, server=True)
    started = next(client.server for client in clients if client.server != "old")
    pids = [name.pid for name in world._premises.started().values()]
    pids += [child._process.pid for child in world._premises._children]
    assert len(pids) == 4
    world.server(started).hang()
    world.server("old").hang()
    folder = Path(world.config.folder)
    world.close()
    assert not folder.exists()
    assert not [pid for pid in pids if runs(pid)]
    assert not world.clients_reactor.getDelayedCalls()
    assert not [
        reader for reader in world.clients_reactor.getReaders() if hasattr(reader, "factory")
    ]
    world.close()  # does nothing


def test_forgotten_worlds() -> None:
    """A program that does not close its worlds leaves nothing of them: no folder, and no process."""
    program = """
from gameproxy.simulation.live import Live
from gameproxy.simulation.world import Simulation
for world in Simulation(), Live():
    world.assert_reached(world.clients.batch(1), server=True)
    print(world.config.folder)
for name in world._premises.started().values():
    print(f"/proc/{name.pid}")
for child in world._premises._children:
    print(f"/proc/{child._process.pid}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    left = done.stdout.splitlines()
    assert len(left) == 4
    assert not [path for path in left[:2] if Path(path).exists()]
    pids = [int(path.rpartition("/")[2]) for path in left[2:]]
    assert not [pid for pid in pids if runs(pid)]


def test_live_proxy_that_ends() -> None:
    """A proxy that ends though nobody wanted it fails the test, and its last words are told."""
    with Live() as world:
        world.hydrate("three_servers")
        child = world.proxies[0].child
        assert child is not None
        child.kill()
        with pytest.raises(WorldFailed, match=r"(?s)a proxy has ended.*proxy0: .*serves echo at"):
            world.run_for(1)


def test_live_wrong_key() -> None:
    """A listed game server may prove itself with a wrong key; tempers that only a simulation has are refused."""
    server = '[[servers]]\nid = "a"\ngame = "echo"\ncapacity = 5\ntemper = { %s }\n'
    guests = "[auth]\nguests = true\n"
    with Live() as world:
        world.hydrate(parse_state(guests + server % "wrong_key = true"))
        world.assert_ended(world.clients.batch(1), "handshake_failed")
    with Live() as world, pytest.raises(ValueError, match=r"servers\[0\].temper cannot"):
        world.hydrate(parse_state(guests + server % "exits = 1.0"))


def test_live_settles() -> None:
    """A real world does not come to rest with a slot left, with a client that saw a fault, or with a proxy that has
    logged one."""
    with Live() as world:
        (client,) = world.clients.batch(1)
        world.assert_reached([client], server=True)
        client.faults.append("a frame too many")
        with pytest.raises(WorldFailed, match="client 0 saw: a frame too many"):
            world.settle()
        client.faults.clear()
        world.execute(
            "INSERT INTO slots (session, proxy, player, address, game, state, queued_at)"
            " SELECT 'ghost', id, 'ghost', '::1', 'echo', 'queued', :now FROM proxies"
        )
        world.patience = 0.01
        with pytest.raises(WorldFailed, match="at rest: 1 slots"):
            world.settle()
        world.patience = 4.0
        world.execute("DELETE FROM slots")
        world.settle()
        child = world.proxies[0].child
        assert child is not None
        with child._output.open("a") as log:
            log.write("Traceback (most recent call last):\n")
        with pytest.raises(WorldFailed, match="proxy0 has failed"):
            world.settle()


def test_live_game_without_a_command() -> None:
    """A real world cannot run a game that it is only shown."""
    with Live() as world, pytest.raises(ValueError, match="needs a command that runs dice"):
        world.add_game("dice", Dice)


def test_live_budget() -> None:
    """A world that takes too long fails."""
    with Live(wall_budget=0.5) as world:
        world.hydrate("three_servers")
        with pytest.raises(WorldFailed, match=r"past its 0\.5 s"):
            world.run_for(2)


if __name__ == "__main__":
    run(Dice())  # as a game server of a real world
