"""What goes wrong with the farm's database."""

from __future__ import annotations

import sqlite3
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.simulation.fault_timing import Act, later, short

if TYPE_CHECKING:
    from gameproxy.simulation.world import SimProxy, Simulation


def _database_fails(code: int, words: str) -> Act:
    def act(world: Simulation, chance: Random) -> bool:
        def fail() -> int:
            raise _sqlite_error(code, words)

        for threads in world.database_threads():
            threads.fault = fail
            later(world, short(chance), threads.calm)
        return True

    return act


def _slow_database(world: Simulation, chance: Random) -> bool:
    delay = 1000 + chance.randrange(300_000)
    for threads in world.database_threads():
        threads.fault = lambda: delay
        later(world, short(chance), threads.calm)
    return True


def _answer_lost(world: Simulation, chance: Random) -> bool:
    """What was committed is told to have failed."""

    def fail(proxy: SimProxy) -> None:
        proxy.lose_database_connection()  # as when COMMIT raises it
        raise _sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")

    for proxy in world.proxies:
        threads = proxy.database_threads
        threads.fault_after = partial(fail, proxy)
        later(world, 1 + chance.randrange(20_000), threads.calm)
    return True


def _sqlite_error(code: int, words: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


KINDS: Final[dict[str, Act]] = {
    "database-locked": _database_fails(sqlite3.SQLITE_BUSY, "database is locked"),
    "database-full": _database_fails(sqlite3.SQLITE_FULL, "database or disk is full"),
    "database-slow": _slow_database,
    "answer-lost": _answer_lost,
}
