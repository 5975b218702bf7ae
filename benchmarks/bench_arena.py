"""What the arena costs: its game server's CPU for each step, with 64 bots behind a real proxy on this machine.

.venv/bin/python benchmarks/bench_arena.py [SECONDS]
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.task import deferLater, react

from gameproxy.arena.bots import Crowd
from gameproxy.arena.field import PLAYERS_MAX, STEPS_PER_SECOND, Field
from gameproxy.arena.frames import decode_snapshot, snapshot_of
from gameproxy.arena.sense import choose
from gameproxy.arena.walls import ARENA
from gameproxy.config import parse
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.service import GameProxy
from gameproxy.testing import seeded_entropy

CONFIG = f"""
    [proxy]
    listen = ["tcp:0:interface=127.0.0.1"]
    [auth]
    guests = true
    [[games]]
    name = "arena"
    command = ["{sys.executable}", "-m", "gameproxy.arena"]
    capacity = {PLAYERS_MAX}
    max_servers = 1
"""


def alone(steps: int) -> None:
    """The field by itself: microseconds for each step, snapshot, and decision of a bot."""
    field = Field(ARENA, seeded_entropy())
    runners = [field.enter() for _ in range(PLAYERS_MAX)]
    sequences = dict.fromkeys(range(PLAYERS_MAX), 0)
    spent = [0.0, 0.0, 0.0, 0.0]
    size = decisions = 0
    for step in range(steps):
        times = [time.perf_counter()]
        field.step()
        times.append(time.perf_counter())
        body = snapshot_of(field, sequences).encode()
        times.append(time.perf_counter())
        snapshot = decode_snapshot(body)
        times.append(time.perf_counter())
        for runner, seen in zip(runners, snapshot.players, strict=True):
            if (step + runner.id) % 5 == 0:
                runner.heading, dash = choose(ARENA, snapshot, seen)
                decisions += 1
                if dash:
                    field.dash(runner)
        times.append(time.perf_counter())
        size += len(body)
        for number in range(4):
            spent[number] += times[number + 1] - times[number]
    each = [total / steps * 1e6 for total in spent[:3]]
    print(
        f"{PLAYERS_MAX} players, no network: step {each[0]:.0f} us, snapshot {each[1]:.0f} us"
        f" ({size / steps:.0f} bytes), reading it {each[2]:.0f} us,"
        f" a bot's decision {spent[3] / decisions * 1e6:.0f} us"
    )


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def behind_a_proxy(reactor: object, seconds: float, folder: Path) -> None:
    """The game server with its sockets."""
    proxy = GameProxy(parse(CONFIG, folder), reactor)
    proxy.startService()
    await proxy.started
    troubles: list[str] = []
    port = proxy.ports[0].getHost().port
    crowd = Crowd(TwistedLoop(reactor), "127.0.0.1", port, seeded_entropy(), troubles.append)
    crowd.add(PLAYERS_MAX)
    statistics = crowd.statistics
    while statistics.playing < PLAYERS_MAX:
        await deferLater(reactor, 0.1)
    with closing(sqlite3.connect(folder / "farm.db")) as database:
        (server, pid) = database.execute("SELECT id, pid FROM game_servers").fetchone()
    statistics.round_trips.clear()
    before, began = cpu_of(pid), time.perf_counter()
    await deferLater(reactor, seconds)
    used, passed = cpu_of(pid) - before, time.perf_counter() - began
    trips = sorted(statistics.round_trips)
    print(
        f"{PLAYERS_MAX} bots behind a proxy, {passed:.0f} s: the game server uses"
        f" {used / passed / STEPS_PER_SECOND * 1e3:.2f} ms of CPU a step ({used / passed:.1%} of a core);"
        f" round trip p50 {trips[len(trips) // 2] * 1e3:.0f} ms, p99 {trips[len(trips) * 99 // 100] * 1e3:.0f} ms"
        f" of {len(trips)}; troubles {troubles}"
    )
    await crowd.stop()
    await proxy.farm.stop_server(server)
    await deferLater(reactor, 1.0)
    await proxy.stopService()


def main(arguments: Sequence[str]) -> None:
    alone(2000)
    seconds = float(arguments[0]) if arguments else 10.0
    with TemporaryDirectory() as folder:
        react(behind_a_proxy, (seconds, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
