"""What goes wrong with the farm's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.farm.reaper import BEAT_INTERVAL
from gameproxy.simulation.fault_timing import Act, later, long, short
from gameproxy.simulation.kernel import MICROSECONDS

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation


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


def _answer_lost(code: int, words: str) -> Act:
    """What was committed is told to have failed."""

    def act(world: Simulation, chance: Random) -> bool:
        def fail() -> None:
            raise _sqlite_error(code, words)

        for proxy in world.proxies:
            threads = proxy.database_threads
            threads.fault_after = fail
            later(world, 1 + chance.randrange(20_000), threads.calm)
        return True

    return act


def _deleted(world: Simulation, chance: Random) -> bool:
    """Somebody deletes the database, at times with the files beside it."""
    if not world.has_database:
        return False
    _delete(world.config.database_path, with_others=bool(chance.randrange(2)))
    world.replacement.happened()
    return True


def _back_to(put_back: Callable[[Path, Path], object], age: float) -> Act:
    """Somebody makes a backup, and goes back to it later.

    :param put_back: does that, with the backup's file and the database's.
    :param age: seconds that the backup must be old.
    """

    def act(world: Simulation, chance: Random) -> bool:
        if not world.has_database:
            return False
        database = world.config.database_path
        backup = world.config.folder / f"backup-{chance.getrandbits(64):016x}.db"
        _copy(database, backup)

        def restore() -> None:
            world.write("backup")
            put_back(backup, database)
            world.replacement.happened()

        later(world, int(age * MICROSECONDS) + long(chance), restore)
        return True

    return act


def _delete(database: Path, with_others: bool = True) -> None:
    """:param with_others: whether the files that SQLite keeps beside it go too."""
    database.unlink(missing_ok=True)
    for name in (f"{database}-wal", f"{database}-shm") if with_others else ():
        Path(name).unlink(missing_ok=True)


def _move(backup: Path, database: Path) -> None:
    _delete(database)
    backup.rename(database)


def _copy(source: Path, target: Path) -> None:
    """As ``.backup`` and ``.restore`` of the sqlite3 shell do it."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _sqlite_error(code: int, words: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


KINDS: Final[dict[str, Act]] = {
    "database-locked": _database_fails(sqlite3.SQLITE_BUSY, "database is locked"),
    "database-full": _database_fails(sqlite3.SQLITE_FULL, "database or disk is full"),
    "database-slow": _slow_database,
    "answer-lost": _answer_lost(sqlite3.SQLITE_IOERR, "disk I/O error"),
    # SQLite never says so of what it has committed: but nothing depends on that.
    "answer-lost-to-a-lock": _answer_lost(sqlite3.SQLITE_BUSY, "database is locked"),
    "database-deleted": _deleted,
    "backup-moved-back": _back_to(_move, age=0.0),
    "backup-restored": _back_to(_copy, age=2 * BEAT_INTERVAL),
}
