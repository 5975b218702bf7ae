"""gameproxy demo and gameproxy connect, with real sockets and real game servers"""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from gameproxy import cli
from gameproxy.cli import demo
from gameproxy.cli.demo import BOTS, Demo, Result
from gameproxy.cli.demo_view import Snapshot
from gameproxy.testing import seeded_entropy
from tests.game_servers import end_game_servers
from tests.program import Program

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds after which a demo that should have ended has failed."""
PROGRAM = str(Path(sys.executable).parent / "gameproxy")


class Watcher:
    """A view that calls back for each snapshot."""

    interval = 0.1

    def __init__(self, on_snapshot: Callable[[Snapshot], object]) -> None:
        self.snapshots: list[Snapshot] = []
        self._on_snapshot = on_snapshot

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._on_snapshot(snapshot)

    def close(self) -> None:
        self.closed = True


def processes(folder: Path) -> list[tuple[int, str]]:
    """Pid and state of all game servers that a demo has started."""
    with closing(sqlite3.connect(folder / "farm.db")) as database:
        return database.execute("SELECT pid, state FROM game_servers").fetchall()


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        assert error.errno == errno.ESRCH
        return False
    return True


def all_relay(snapshot: Snapshot) -> bool:
    """Whether all bots are in."""
    return snapshot.sessions == {"relaying": BOTS}


def in_time(running: Coroutine[Any, Any, T]) -> Deferred[T]:
    """What comes of it, if that does not take too long."""
    return Deferred.fromCoroutine(running).addTimeout(PATIENCE, reactor)


async def run_demo(
    folder: Path, on_snapshot: Callable[[Demo, Snapshot], object]
) -> tuple[Result, Watcher, list[tuple[int, str]]]:
    """A demo in this process, watched; and the game servers that it has left behind."""
    watcher = Watcher(lambda snapshot: on_snapshot(shown, snapshot))
    shown = Demo(reactor, folder, lambda address: watcher, seeded_entropy())
    try:
        result = await in_time(shown.run(PATIENCE))
    finally:
        left = [(pid, state) for pid, state in processes(folder) if state != "closed"]
        end_game_servers(folder / "farm.db")
    return result, watcher, left


@pytest_twisted.ensureDeferred
async def test_all_bots_play(tmp_path: Path) -> None:
    """Game servers are started until all bots play; at the end nothing is left of any."""
    result, watcher, left = await run_demo(tmp_path, lambda one, now: all_relay(now) and one.end())
    assert result.troubles == []
    assert left == []
    assert not any(is_running(pid) for pid, _ in processes(tmp_path))
    last = watcher.snapshots[-1]
    assert [server.state for server in last.servers] == ["ready"] * 3
    assert sum(server.connections for server in last.servers) == BOTS
    assert result.last.ended == {"left": BOTS}
    assert result.last.sessions == {}
    traffic = result.last.traffic
    assert traffic.server_frames > traffic.client_frames > 0


@pytest_twisted.ensureDeferred
async def test_game_server_dies(tmp_path: Path) -> None:
    """A game server that is killed is trouble, and ends the demo."""

    def kill(one: Demo, now: Snapshot) -> None:
        if all_relay(now):
            os.kill(processes(tmp_path)[0][0], signal.SIGKILL)

    result, _, left = await run_demo(tmp_path, kill)
    assert left == []
    assert result.troubles
    assert "was cut off: server_lost: " in result.troubles[0]


@pytest_twisted.ensureDeferred
async def test_nothing_can_be_shown(tmp_path: Path) -> None:
    """When what is shown goes nowhere (``gameproxy demo | head -1``), the demo ends with trouble."""

    def break_pipe(one: Demo, now: Snapshot) -> None:
        raise BrokenPipeError("Broken pipe")

    result, _, left = await run_demo(tmp_path, break_pipe)
    assert left == []
    assert result.troubles == ["nothing can be shown: Broken pipe"]


@pytest_twisted.ensureDeferred
async def test_game_server_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Game servers that do not stop in time are trouble."""
    monkeypatch.setattr(demo, "STOP_LOOKS", 0)

    result, _, left = await run_demo(tmp_path, lambda one, now: all_relay(now) and one.end())
    assert left
    assert result.troubles == ["some game servers did not stop"]


class TriggerReactor:
    """The reactor, with triggers that a test can pull."""

    def __init__(self) -> None:
        self.triggers: list[Callable[[], Deferred[None]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def addSystemEventTrigger(self, phase: str, event: str, *called: Any) -> Any:
        if phase != "before":
            return reactor.addSystemEventTrigger(phase, event, *called)
        self.triggers.append(called[0])
        return None


@pytest_twisted.ensureDeferred
async def test_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the demo, which tidies up before the program ends, with 0."""
    triggers = TriggerReactor()
    reactor.callLater(0.2, lambda: triggers.triggers[0]())
    assert await in_time(demo._main(tmp_path, None, triggers)) == 0  # type: ignore[arg-type]
    assert "Done in " in capsys.readouterr().out


def test_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo runs in a folder that is gone afterwards."""
    folders: list[Path] = []

    def run_reactor(main: Any) -> int:
        folder, seconds = main.args
        assert folder.is_dir()
        assert seconds == 2.5
        folders.append(folder)
        return 5

    monkeypatch.setattr(demo, "run_reactor", run_reactor)
    monkeypatch.setattr(demo, "_log_errors", lambda: None)
    assert cli.main(["demo", "--for", "2.5"]) == 5
    assert not folders[0].exists()


@pytest_twisted.ensureDeferred
async def test_commands(tmp_path: Path) -> None:
    """``python -m gameproxy demo --for`` shows the bots and ends by itself with 0; meanwhile a person can
    connect as it says."""
    shown = Program([sys.executable, "-m", "gameproxy", "demo", "--for", "6"], tmp_path)
    try:
        found = await shown.says(r"To join in: python -m gameproxy (connect \S+ --guest you)\n")
        await shown.says(r"servers: [1-9]\d* ready.*sessions: \d+ \(\d+ relaying")
        line = f"echo 10 0001 01 00 | {PROGRAM} {found[1]} --hex"
        person = Program(["/bin/sh", "-c", line], tmp_path)
        assert await person.over() == 0, person.output
        assert re.search(r"frame of \d+ bytes: 11 ", person.output), person.output
        assert person.output.endswith("you left\n")
        refused = Program(["/bin/sh", "-c", line.replace("--guest", "--ticket")], tmp_path)
        assert await refused.over() == 1
        assert refused.output.startswith("ERROR auth_failed: ")
        assert await shown.over() == 0, shown.output
    finally:
        await shown.end()
    assert re.search(rf"sessions: {BOTS} ", shown.output)
    assert re.search(r"Done in 6 s: 1\d sessions \(1 auth_failed, 1\d left\)", shown.output)
    assert "Trouble" not in shown.output
