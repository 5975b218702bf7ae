"""Started game servers as real processes, on a real reactor and real threads."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from gameproxy.config import Config
from gameproxy.farm import FarmStore, GameFarm, GameServerStarter, LinuxProcesses
from gameproxy.interfaces import Identity, Peer, Slot, SlotRequest, Waiting
from gameproxy.reasons import Refusal

GAME_SERVER = """
import json, os, signal, sqlite3, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
names = [name for name in os.environ if name.startswith("GAMEPROXY_")]
facts = {
    "environment": {name: os.environ[name] for name in names},
    "key": open(os.environ["GAMEPROXY_SECRET_FILE"]).read().strip(),
    "key mode": os.stat(os.environ["GAMEPROXY_SECRET_FILE"]).st_mode & 0o777,
    "folder": os.getcwd(),
    "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "input": sys.stdin.read(),
    "inherited": os.environ.get("INHERITED"),
}
open("facts.tmp", "w").write(json.dumps(facts))
os.rename("facts.tmp", "facts.json")
print("hello from", os.environ["GAMEPROXY_SERVER_ID"], flush=True)
print("trouble", file=sys.stderr, flush=True)
if "child" in sys.argv:
    if os.fork() == 0:
        time.sleep(60)
    open("child", "w").write("forked")
farm = sqlite3.connect(os.environ["GAMEPROXY_FARM"].removeprefix("sqlite:///"), timeout=5)
while not os.path.exists("go"):
    time.sleep(0.005)
farm.execute("UPDATE game_servers SET state='ready', host=?, port=?, heartbeat_at=? WHERE id=? AND state='starting'",
    ("127.0.0.1", 5000, time.time(), os.environ["GAMEPROXY_SERVER_ID"]))
farm.commit()
written = time.time()
open("written", "w").write(str(written))
while True:
    time.sleep(0.5)
    farm.execute("UPDATE game_servers SET heartbeat_at=? WHERE id=?", (time.time(), os.environ["GAMEPROXY_SERVER_ID"]))
    farm.commit()
"""


class Place:
    """A folder with a farm, and what has to be cleaned up in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "farm.db"
        self.count = 0
        (folder / "server.py").write_text(GAME_SERVER)

    def farm(self, *arguments: str, **game: Any) -> GameFarm:
        config = Config.model_validate(
            {
                "games": [
                    {
                        "name": "chess",
                        "command": [sys.executable, "server.py", *arguments],
                        "capacity": 2,
                        "max_servers": 2,
                        **game,
                    }
                ]
            }
        )
        processes = LinuxProcesses()
        self.evicted: list[tuple[str, Refusal]] = []
        environment = {**os.environ, "INHERITED": "yes"}
        starter = GameServerStarter(
            reactor, processes, self.folder, self.database, environment, lambda _: b"k" * 32
        )
        return GameFarm(
            config,
            FarmStore(str(self.database), reactor),
            starter,
            processes,
            reactor,
            os.urandom,
            lambda _: b"k" * 32,
            lambda session, refusal: self.evicted.append((session, refusal)),
            lambda session: None,
        )

    def acquire(self, farm: GameFarm, player: str = "") -> Deferred[Slot]:
        self.count += 1
        name = f"session{self.count}"
        request = SlotRequest(
            name, Identity(player or name, "ticket"), "chess", Peer("127.0.0.1", 1, False)
        )
        return farm.acquire(request, self.waiting)

    def waiting(self, waiting: Waiting) -> None:
        pass

    def sql(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.database, timeout=5)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it does not happen"
            await deferLater(reactor, 0.01)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if made.database.exists():
        for (pid,) in made.sql("SELECT pid FROM game_servers WHERE pid IS NOT NULL"):
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest_twisted.ensureDeferred
async def test_started_as_promised(place: Place) -> None:
    """A started game server finds all that the protocol promises, and is used within 50 ms of its readiness."""
    farm = place.farm()
    await farm.start()
    slot = place.acquire(farm)
    await place.until((place.folder / "facts.json").exists)
    facts = json.loads((place.folder / "facts.json").read_text())
    ((server, pid),) = place.sql("SELECT id, pid FROM game_servers")
    key_file = place.folder / "farm.servers" / f"{server}.key"
    assert facts == {
        "environment": {
            "GAMEPROXY_SERVER_ID": server,
            "GAMEPROXY_GAME": "chess",
            "GAMEPROXY_FARM": f"sqlite:///{place.database}",
            "GAMEPROXY_SECRET_FILE": str(key_file),
            "GAMEPROXY_HOST": "127.0.0.1",
            "GAMEPROXY_PORT": "0",
            "GAMEPROXY_CAPACITY": "2",
        },
        "key": "6b" * 32,
        "key mode": 0o600,
        "folder": str(place.folder),
        "session": True,
        "input": "",
        "inherited": "yes",
    }
    assert f"sqlite:///{place.database}".startswith("sqlite:////")
    await deferLater(reactor, 0.2)
    assert not slot.called
    (place.folder / "go").touch()
    result = await slot
    seen = time.time()
    await place.until((place.folder / "written").exists)
    assert (result.server, result.host, result.port) == (server, "127.0.0.1", 5000)
    assert seen - float((place.folder / "written").read_text()) < 0.05
    output = (place.folder / "farm.servers" / f"{server}.log").read_text()
    assert output == f"hello from {server}\ntrouble\n"
    assert await farm.stop_server(server)
    await place.until(lambda: place.sql("SELECT state FROM game_servers") == [("closed",)])
    assert not key_file.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await farm.stop()


@pytest_twisted.ensureDeferred
async def test_killed_with_its_children(place: Place) -> None:
    """A game server that does not heed SIGTERM is killed after stop_grace, and its process group with it."""
    (place.folder / "go").touch()
    farm = place.farm("deaf", "child", stop_grace=0.5)
    await farm.start()
    slot = await place.acquire(farm)
    ((pid,),) = place.sql("SELECT pid FROM game_servers")
    await farm.stop_server(slot.server)
    await deferLater(reactor, 0.3)
    os.killpg(pid, 0)
    await place.until(lambda: place.sql("SELECT state FROM game_servers") == [("closed",)])

    def group_is_gone() -> bool:
        stats = [text.split() for text in _stats()]
        return not any(fields[4] == str(pid) and fields[2] != "Z" for fields in stats)

    await place.until(group_is_gone)
    await farm.stop()


def _stats() -> list[str]:
    texts = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Others end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            texts.append(path.read_text())
    return texts


@pytest_twisted.ensureDeferred
async def test_signals_of_a_game_server(place: Place) -> None:
    """What Python ignores a game server does not: SIGPIPE and SIGXFSZ."""
    farm = place.farm(command=["grep", "SigIgn", "/proc/self/status"], start_attempts=1)
    await farm.start()
    with pytest.raises(Refusal):
        await place.acquire(farm)
    (log,) = (place.folder / "farm.servers").glob("*.log")
    ignored = int(log.read_text().split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    await farm.stop()


@pytest_twisted.ensureDeferred
async def test_no_such_command(place: Place) -> None:
    """A command that is not there makes the start fail, and the reason is in the server's file of output."""
    farm = place.farm(command=["./no-such-program"], start_attempts=1)
    await farm.start()
    with pytest.raises(Refusal) as refusal:
        await place.acquire(farm)
    assert str(refusal.value.reason) == "start_failed"
    (log,) = (place.folder / "farm.servers").glob("*.log")
    assert (
        log.read_text()
        == f"{place.folder}/no-such-program cannot be run: No such file or directory\n"
    )
    await farm.stop()


@pytest_twisted.ensureDeferred
async def test_command_of_the_folder_and_of_the_path(place: Place) -> None:
    """A command with a slash is one of the configuration's folder, others are looked up in PATH."""
    (place.folder / "go").touch()
    (place.folder / "bin").mkdir()
    own = place.folder / "bin" / "own"
    own.write_text(f"#!/bin/sh\nexec {sys.executable} server.py\n")
    own.chmod(0o755)
    for command in (["bin/own"], ["env", sys.executable, "server.py"]):
        farm = place.farm(command=command, start_attempts=1)
        await farm.start()
        slot = await place.acquire(farm)
        assert await farm.stop_server(slot.server)
        await place.until(
            lambda: not place.sql("SELECT 1 FROM game_servers WHERE state <> 'closed'")
        )
        await farm.stop()


@pytest_twisted.ensureDeferred
async def test_servers_outlive_the_proxy(place: Place) -> None:
    """When the proxy has stopped its game servers go on, and the next proxy uses them and notices their end."""
    (place.folder / "go").touch()
    farm = place.farm()
    await farm.start()
    slot = await place.acquire(farm)
    ((pid,),) = place.sql("SELECT pid FROM game_servers")
    await farm.stop()
    os.kill(pid, 0)
    again = place.farm()
    await again.start()
    assert (await place.acquire(again)).server == slot.server
    os.kill(pid, signal.SIGKILL)
    await place.until(lambda: place.sql("SELECT state FROM game_servers") == [("closed",)])
    await again.stop()


PROXY = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from twisted.internet import reactor
from tests.real.test_farm_real import Place
place = Place(Path(sys.argv[1]))
farm = place.farm()
farm.start().addCallback(lambda _: place.acquire(farm, "anna"))
reactor.run()
"""


@pytest_twisted.ensureDeferred
async def test_killed_proxy(place: Place) -> None:
    """After SIGKILL a proxy's game server lives, and its slots are free as soon as another proxy starts."""
    (place.folder / "go").touch()
    other = subprocess.Popen([sys.executable, "-c", PROXY, str(place.folder), *sys.path])
    try:
        await place.until(
            lambda: (
                place.database.exists()
                and place.sql("SELECT 1 FROM sqlite_master WHERE name = 'slots'")
            )
        )
        await place.until(lambda: place.sql("SELECT reserved FROM game_servers") == [(1,)])
    finally:
        other.kill()
        other.wait()
    farm = place.farm()
    await farm.start()
    assert place.sql("SELECT reserved, state FROM game_servers") == [(0, "ready")]
    await place.acquire(farm, "anna")
    assert place.sql("SELECT count(*) FROM game_servers") == [(1,)]
    await farm.stop()


@pytest_twisted.ensureDeferred
async def test_two_proxies_in_a_hurry(place: Place) -> None:
    """Two proxies that fill the same servers at the same time never overfill them, and use all of their room."""
    one, two = place.farm(), place.farm()
    await gatherResults([one.start(), two.start()])
    for name in "abcd":
        connection = sqlite3.connect(place.database, timeout=5)
        connection.execute(
            "INSERT INTO game_servers (id, game, state, host, port, capacity) "
            "VALUES (?, 'chess', 'ready', '127.0.0.1', 1, 50)",
            (name,),
        )
        connection.commit()
        connection.close()
    slots = await gatherResults([place.acquire((one, two)[n % 2]) for n in range(200)])
    taken = [slot.server for slot in slots]
    assert [taken.count(name) for name in "abcd"] == [50] * 4
    assert place.sql("SELECT total(reserved) FROM game_servers") == [(200.0,)]
    for farm in (one, two):
        for slot in slots:
            farm.release(slot.session)
    await gatherResults([one.stop(), two.stop()])
    assert place.sql("SELECT total(reserved) FROM game_servers") == [(0.0,)]


@pytest_twisted.ensureDeferred
async def test_made_by_several_at_once(place: Place) -> None:
    """Stores that open a database which is not there yet, at the same moment, all work at once."""
    for number in range(30):
        stores = [FarmStore(str(place.folder / f"{number}.db"), reactor) for _ in range(4)]
        results = await gatherResults([store.write(lambda cursor: 1) for store in stores])
        assert results == [1, 1, 1, 1]
        await gatherResults([store.close() for store in stores])


@pytest_twisted.ensureDeferred
async def test_locked_for_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody holds the lock for longer than is waited, sessions are refused for a while; then all is well."""
    monkeypatch.setattr("gameproxy.farm.database.BUSY_TIMEOUT", 0.2)
    farm = place.farm()
    await farm.start()
    other = sqlite3.connect(place.database, isolation_level=None)
    other.execute(
        "INSERT INTO game_servers (id, game, state, host, port, capacity) "
        "VALUES ('a', 'chess', 'ready', '127.0.0.1', 1, 50)"
    )
    held = await place.acquire(farm)
    other.execute("BEGIN IMMEDIATE")
    farm.release(held.session)
    with pytest.raises(Refusal) as refusal:
        await place.acquire(farm)
    assert (str(refusal.value.reason), refusal.value.retry_after) == ("internal", 5.0)
    other.execute("ROLLBACK")
    other.close()
    await place.until(lambda: place.sql("SELECT reserved FROM game_servers") == [(0,)])
    assert (await place.acquire(farm)).server == "a"
    await farm.stop()
