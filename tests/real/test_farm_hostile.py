"""A database with which others do what they should not: they write all the time, fill the disk, put backups in its
place."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.program import Program
from tests.real.crash_scenes import CrashTown
from tests.real.crowd import Refused, together, until
from tests.real.rig import Rig, leftovers
from tests.real.streams import ERROR, WELCOME, auth, pause
from tests.real.streams import until as until_nothing

WRITER = """
import sqlite3, sys
timeout, rows = float(sys.argv[2]), int(sys.argv[3])
database = sqlite3.connect(sys.argv[1], timeout=timeout, isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS another (x)")
print("begin", flush=True)
while True:
    try:
        database.execute("BEGIN IMMEDIATE")
        for number in range(rows):
            database.execute("INSERT INTO another VALUES (?)", (number,))
        database.execute("DELETE FROM another")
        database.execute("COMMIT")
    except sqlite3.OperationalError:
        pass
"""


@contextmanager
def writing(database: Path, timeout: float, rows: int) -> Iterator[None]:
    """Another program writes transactions of so many rows, one right after the other."""
    arguments = [sys.executable, "-c", WRITER, str(database), str(timeout), str(rows)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begin\n"
            yield
        finally:
            writer.kill()


@pytest.mark.parametrize(("timeout", "rows"), [(5.0, 1), (0.0, 1), (5.0, 1000), (0.0, 1000)])
@pytest_twisted.ensureDeferred
async def test_busy_writer(tmp_path: Path, timeout: float, rows: int) -> None:
    """While another program writes in a tight loop, with or without waiting for the lock itself, sessions come and go;
    nobody is refused."""
    took = []
    async with Rig(tmp_path) as rig, rig.canary(lines=60):
        with writing(tmp_path / "farm.db", timeout, rows):
            for _ in range(8):
                began = reactor.seconds()
                client = await rig.connect()
                client.send(auth(game="echo"))
                await client.message(WELCOME)
                took.append(reactor.seconds() - began)
                await rig.leave(client)
        await until_nothing(lambda: leftovers(rig, 1))
    assert min(took) < 1.0, took


def _copy_over(backup: Path, database: Path) -> None:
    shutil.copyfile(backup, database)


def _copy_over_after_checkpoint(backup: Path, database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=5)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(backup, database)


def _move_over(backup: Path, database: Path) -> None:
    backup.replace(database)


def _move_over_all(backup: Path, database: Path) -> None:
    for name in ("-wal", "-shm"):
        database.with_name(database.name + name).unlink(missing_ok=True)
    backup.replace(database)


@pytest.mark.parametrize(
    "replace", [_copy_over, _copy_over_after_checkpoint, _move_over, _move_over_all]
)
@pytest_twisted.ensureDeferred
async def test_backup(tmp_path: Path, replace: Callable[[Path, Path], None]) -> None:
    """A backup put in the database's place ends no session that relays; who has left since stays gone, who has come
    since is there, and new ones are let in."""
    database, backup = tmp_path / "farm.db", tmp_path / "backup.db"
    async with Rig(tmp_path) as rig, rig.canary(lines=100) as canary:
        leaving = await rig.join(name="leaving")
        await until_nothing(lambda: leftovers(rig, 2))
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
            copy.execute("UPDATE proxies SET beat = beat - 60")  # it is an old one
            copy.commit()
        await rig.leave(leaving)
        staying = await rig.join(name="staying")
        await until_nothing(lambda: leftovers(rig, 2))
        replace(backup, database)
        give_up = reactor.seconds() + 8.0
        while True:
            client = await rig.connect()
            client.send(auth(game="echo"))
            body = await client.body()
            await canary.echo(b"\x10during")
            if body[0] == WELCOME:
                break
            assert body[0] == ERROR and b'"internal"' in body, body
            await client.rest()
            await rig.over("internal")
            assert reactor.seconds() < give_up, "it does not recover"
            await pause(0.1)
        await staying.echo(b"\x10during")
        await until_nothing(lambda: leftovers(rig, 3), 8.0)
        await rig.leave(client)
        await rig.leave(staying)


@pytest_twisted.ensureDeferred
async def test_full_disk(tmp_path: Path) -> None:
    """While the proxy can write no more into its files, who relays goes on and who comes is told when to try again;
    when there is room again all is well. (A limit on the size of files stands for the full disk.)"""
    async with CrashTown(tmp_path, capacity=4, servers=1) as town:
        visitors = await together(town.join(f"visitor {n}") for n in range(3))
        await town.settled(3)
        pid = town.proxies[0].transport.pid
        none, unlimited = (4096, resource.RLIM_INFINITY), (resource.RLIM_INFINITY,) * 2
        resource.prlimit(pid, resource.RLIMIT_FSIZE, none)
        with pytest.raises(Refused) as refused:
            await (await town.ask("late")).welcomed()
        assert refused.value.code == "internal"
        assert refused.value.error["retry_after"] > 0
        visitors.pop().say_close()
        await together(visitor.echo(b"\x10on") for visitor in visitors)
        await pause(0.5)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        await town.settled(2)
        visitors.append(await town.join("late"))
        await together(visitor.echo(b"\x10on") for visitor in visitors)
        await town.settled(3)
        await town.in_agreement()


@pytest_twisted.ensureDeferred
async def test_newer_version(tmp_path: Path) -> None:
    """With a database of a newer version the program ends with status 1, and says what to do in plain words."""
    with closing(sqlite3.connect(tmp_path / "farm.db")) as database:
        database.execute("PRAGMA user_version = 9999")
    config = '[proxy]\nlisten = ["tcp:0:interface=127.0.0.1"]\n[auth]\nguests = true\n'
    (tmp_path / "gameproxy.toml").write_text(
        f'{config}[[servers]]\nid = "a"\ngame = "go"\nhost = "127.0.0.1"\nport = 1\ncapacity = 1\n'
    )
    command = [sys.executable, "-m", "twisted", "--log-format", "text", "gameproxy"]
    proxy = Program([*command, "--config", "gameproxy.toml"], tmp_path)
    assert await proxy.over() == 1
    assert "Cannot start: the database has version 9999" in proxy.output
    assert "install a newer gameproxy, or move the file away" in proxy.output
    assert "Traceback" not in proxy.output
    with closing(sqlite3.connect(tmp_path / "farm.db")) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


@pytest_twisted.ensureDeferred
async def test_server_edited_to_nonsense(tmp_path: Path) -> None:
    """Nonsense in the row of a started game server ends none of its sessions, and others come to another server."""
    async with CrashTown(tmp_path, capacity=4, servers=2) as town:
        visitors = await together(town.join(f"visitor {n}") for n in range(2))
        ((server, pid),) = town.started().items()
        town.query(
            "UPDATE game_servers SET host = NULL, port = 0, capacity = -5, state = 'odd',"
            " heartbeat_at = 'soon', started_at = 'x', reported_load = 'heavy', pid = 'many'"
        )
        visitors += await together(town.join(f"other {n}") for n in range(2))
        assert len(town.events("started")) == 2
        await pause(1.0)  # a look at the farm comes every 0.75 s
        await together(visitor.echo(b"\x10on") for visitor in visitors)
        assert server not in town.started()
        for visitor in visitors:
            visitor.say_close()
        await until(lambda: not town.query("SELECT 1 FROM slots"))
        await town.settled(0)
        os.killpg(pid, signal.SIGKILL)  # the farm's tables name it no more
