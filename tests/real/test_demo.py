"""gameproxy demo and gameproxy connect, with real sockets and real game servers"""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gameproxy import cli
from gameproxy.cli import demo, demo_run
from gameproxy.cli.demo import Troubles
from gameproxy.cli.demo_facts import Snapshot
from gameproxy.cli.demo_run import BOTS_MAX, Demo
from gameproxy.testing import seeded_entropy
from tests.game_servers import end_game_servers
from tests.program import Program

T = TypeVar("T")
BOTS = 10
PATIENCE = 60.0
"""Seconds after which a demo that should have ended has failed."""
PROGRAM = str(Path(sys.executable).parent / "gameproxy")


class Watcher:
    """A view that calls back for each snapshot."""

    interval = 0.1

    def __init__(self, on_snapshot: Callable[[Snapshot], object]) -> None:
        self.snapshots: list[Snapshot] = []
        self.closed = False
        self._on_snapshot = on_snapshot

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._on_snapshot(snapshot)

    def close(self) -> None:
        self.closed = True


@dataclass
class Outcome:
    """What came of a demo.

    :ivar last: its last snapshot; ``shown``: all that were shown.
    :ivar left: pid and state of game servers that it has left behind.
    """

    last: Snapshot
    shown: list[Snapshot]
    troubles: list[str]
    left: list[tuple[int, str]]


def processes(folder: Path) -> list[tuple[int, str]]:
    """Pid and state of all game servers that a demo has started, the oldest first."""
    with closing(sqlite3.connect(folder / "farm.db")) as database:
        return database.execute(
            "SELECT pid, state FROM game_servers WHERE game = 'arena' ORDER BY started_at"
        ).fetchall()


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        assert error.errno == errno.ESRCH
        return False
    return True


def processes_of(folder: Path) -> list[str]:
    """The pids of processes that were told of something in a folder, as game servers are of their farm."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another's
            if os.fsencode(folder) in environment.read_bytes():
                found.append(environment.parent.name)
    return found


def all_relay(snapshot: Snapshot) -> bool:
    """Whether all bots are in, and the probe."""
    return snapshot.sessions == {"relaying": BOTS + 1} and snapshot.round_trip is not None


def in_time(running: Coroutine[Any, Any, T]) -> Deferred[T]:
    """What comes of it, if that does not take too long."""
    return Deferred.fromCoroutine(running).addTimeout(PATIENCE, reactor)


async def run_demo(folder: Path, on_snapshot: Callable[[Demo, Snapshot], object]) -> Outcome:
    """A demo in this process, watched, whose bots are all to play."""
    watcher = Watcher(lambda snapshot: on_snapshot(shown, snapshot))
    troubles: list[str] = []
    shown = Demo(
        reactor,
        folder,
        lambda address, audience: watcher,
        seeded_entropy(),
        troubles.append,
        BOTS,
        lambda seconds: 1.0,
    )
    try:
        last = await in_time(shown.run(PATIENCE))
    finally:
        left = [(pid, state) for pid, state in processes(folder) if state != "closed"]
        end_game_servers(folder / "farm.db")
    assert watcher.closed
    return Outcome(last, watcher.snapshots, troubles, left)


@pytest_twisted.ensureDeferred
async def test_all_bots_play(tmp_path: Path) -> None:
    """Game servers are started until all bots play; what is shown is measured; at the end nothing is left of any."""
    came = await run_demo(tmp_path, lambda one, now: all_relay(now) and one.end())
    assert came.troubles == []
    assert came.left == []
    assert not any(is_running(pid) for pid, _ in processes(tmp_path))
    played = next(now for now in came.shown if all_relay(now))
    assert [(server.game, server.state) for server in played.servers] == [
        ("arena", "ready"),
        ("arena", "ready"),
        ("echo", "ready"),
    ]
    assert sum(server.connections for server in played.servers) == BOTS + 1
    assert (played.bots, played.bots_most) == (BOTS, BOTS)
    assert played.set_up is not None
    assert 0 < played.set_up.median <= played.set_up.most < PATIENCE
    assert played.round_trip is not None
    assert 0 < played.round_trip.direct < 1
    assert 0 < played.round_trip.proxied < 1
    assert sum("is ready" in event.text for event in played.events) == 3
    assert came.last.ended == {"left": BOTS + 1}
    assert came.last.sessions == {}
    assert came.last.minute.frames
    assert came.last.traffic.server_frames > came.last.traffic.client_frames > 0


@pytest_twisted.ensureDeferred
async def test_game_server_dies(tmp_path: Path) -> None:
    """A game server that dies is trouble; the demo goes on, and says so."""
    killed: list[int] = []

    def kill(one: Demo, now: Snapshot) -> None:
        if now.troubles:
            one.end()
        elif all_relay(now) and not killed:
            killed.append(processes(tmp_path)[0][0])
            os.kill(killed[0], signal.SIGKILL)

    came = await run_demo(tmp_path, kill)
    assert came.left == []
    assert "was cut off: server_lost: " in came.troubles[0]
    assert any("trouble: bot-" in event.text for event in came.shown[-1].events)


@pytest_twisted.ensureDeferred
async def test_game_server_is_killed(tmp_path: Path) -> None:
    """A game server that a key kills is no trouble, nor is the probe's: others are started, and all play again."""
    kills: list[int] = []

    def act(one: Demo, now: Snapshot) -> None:
        lost = now.ended.get("server_lost", 0)
        if not all_relay(now) or lost in kills:
            return  # not yet, or not any more
        kills.append(lost)
        if lost == 8:
            one.press("up")  # from below: that of the probe
        if lost == 9:
            one.end()
        else:
            one.press("k")

    came = await run_demo(tmp_path, act)
    assert came.troubles == []
    assert came.left == []
    assert kills == [0, 8, 9]
    assert came.last.ended["server_lost"] == 9
    said = [event.text for event in came.shown[-1].events]
    assert sum("was killed, with 8 sessions on it" in text for text in said) == 1
    assert sum("was killed, with 1 session on it" in text for text in said) == 1


@pytest_twisted.ensureDeferred
async def test_drained_and_changed(tmp_path: Path) -> None:
    """Keys drain a game server and change how many bots there are, within bounds; while it is paused what is shown
    stays, but for what was done."""
    done = False

    def act(one: Demo, now: Snapshot) -> None:
        nonlocal done
        if not all_relay(now) or done:
            return
        done = True
        for key in ("d", *("-" * 3), *("+" * 20), "p"):
            one.press(key)
        reactor.callLater(0.5, one.press, "p")
        reactor.callLater(1.0, one.press, "q")

    came = await run_demo(tmp_path, act)
    assert came.troubles == []
    assert came.left == []
    paused = [now for now in came.shown if now.paused]
    assert len(paused) > 2
    assert {now.seconds for now in paused} == {paused[0].seconds}
    assert paused[0].bots_most == BOTS_MAX
    said = [event.text for event in came.shown[-1].events]
    assert "0 bots from now on" in said
    assert any("takes no more players" in text for text in said)
    assert (
        any(server.state == "draining" for server in came.shown[-1].servers)
        or came.shown[-1].servers == []
    )


@pytest_twisted.ensureDeferred
async def test_nothing_can_be_shown(tmp_path: Path) -> None:
    """When what is shown goes nowhere (``gameproxy demo | head -1``), the demo ends with trouble."""

    def break_pipe(one: Demo, now: Snapshot) -> None:
        raise BrokenPipeError("Broken pipe")

    came = await run_demo(tmp_path, break_pipe)
    assert came.left == []
    assert came.troubles == ["nothing can be shown: Broken pipe"]


@pytest_twisted.ensureDeferred
async def test_show_fails(tmp_path: Path) -> None:
    """When showing fails otherwise, the demo ends with trouble, too."""

    def fail(one: Demo, now: Snapshot) -> None:
        raise ValueError("no such colour")

    came = await run_demo(tmp_path, fail)
    assert came.left == []
    assert came.troubles == ["the demo has failed: no such colour"]


@pytest_twisted.ensureDeferred
async def test_game_server_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Game servers that do not stop in time are trouble."""
    monkeypatch.setattr(demo_run, "STOP_LOOKS", 0)

    came = await run_demo(tmp_path, lambda one, now: all_relay(now) and one.end())
    assert came.left
    assert came.troubles == ["some game servers did not stop"]


@pytest_twisted.ensureDeferred
async def test_keys_in_a_terminal(tmp_path: Path) -> None:
    """In a terminal of 80x24 keys do what they say, and it is said; the terminal is given back as it was, and nothing
    is left behind."""
    command = f"{PROGRAM} demo --bots 6; echo status $?; stty -a"
    shown = Program(
        ["/bin/sh", "-c", command], tmp_path, {"TMPDIR": str(tmp_path)}, in_terminal=True
    )
    try:
        await shown.says("6 relaying|7 relaying")
        for keys, answer in (
            (b"k", r"arena-\w+ was killed, with \d sessions? on it"),
            (b"+", "16 bots from now on"),
            (b"\x1b[B", r"arena-\w+ is selected"),
            (b"d", r"arena-\w+ is drained"),
            (b"p", "paused: p goes on"),
            (b"q", r"Done in \d+ s: "),
        ):
            shown.press(keys)
            await shown.says(answer)
        assert await shown.over() == 0
    finally:
        await shown.end()
    before, after = shown.output.split("\x1b[?1049l")
    assert before.startswith("\x1b[?1049h")
    assert before.endswith("\x1b[?25h")
    assert "status 0" in after
    assert re.search(r"(?<!-)\bicanon\b", after)
    assert re.search(r"(?<!-)\becho\b", after)
    assert "\x1b" not in after
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
@pytest_twisted.ensureDeferred
async def test_signals(tmp_path: Path, name: str) -> None:
    """However it is ended, the terminal is given back, and nothing is left behind."""
    shown = Program(
        [PROGRAM, "demo", "--bots", "2"], tmp_path, {"TMPDIR": str(tmp_path)}, in_terminal=True
    )
    try:
        await shown.says("[123] relaying")
        assert await shown.end(name) == 0, shown.output
    finally:
        await shown.end()
    assert "\x1b[?25h\x1b[?1049l" in shown.output
    assert "Done in" in shown.output
    assert "Trouble" not in shown.output
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


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
    args = cli.command_line().parse_args(["demo", "--bots", "1"])
    troubles = Troubles()
    main = demo._main(tmp_path, args, troubles, triggers)  # type: ignore[arg-type]
    over = in_time(main)
    while not triggers.triggers:
        await deferLater(reactor, 0.05)
    triggers.triggers[0]()
    assert await over == 0
    assert not troubles.tell()
    assert "Done in " in capsys.readouterr().out


def test_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo runs in a folder that is gone afterwards."""
    folders: list[Path] = []

    def run_reactor(main: Any) -> int:
        folder, args, _ = main.args
        assert folder.is_dir()
        assert args.seconds == 2.5
        folders.append(folder)
        return 5

    monkeypatch.setattr(demo, "run_reactor", run_reactor)
    monkeypatch.setattr(Troubles, "watch_log", lambda troubles: None)
    assert cli.main(["demo", "--for", "2.5"]) == 5
    assert not folders[0].exists()


@pytest_twisted.ensureDeferred
async def test_ends_by_itself(tmp_path: Path) -> None:
    """``python -m gameproxy demo --for`` shows the bots, and ends with 0 when its time is over."""
    shown = Program(
        [sys.executable, "-m", "gameproxy", "demo", "--for", "3", "--bots", "3"], tmp_path
    )
    try:
        assert await shown.over() == 0, shown.output
    finally:
        await shown.end()
    done = re.search(r"Done in (\d+) s: [3-9] sessions", shown.output)
    assert done, shown.output
    assert int(done[1]) >= 3
    assert "Trouble" not in shown.output


@pytest_twisted.ensureDeferred
async def test_commands(tmp_path: Path) -> None:
    """While ``python -m gameproxy demo`` runs a person can connect as it says."""
    shown = Program([sys.executable, "-m", "gameproxy", "demo", "--bots", "10"], tmp_path)
    try:
        found = await shown.says(
            r"To join in: python -m gameproxy (connect \S+ --guest you --game arena)\n"
        )
        await shown.says(r"servers: [1-9]\d* ready.*sessions: \d+ \(\d+ relaying")
        line = f"echo 10 0001 01 00 | {PROGRAM} {found[1]} --hex"
        person = Program(["/bin/sh", "-c", line], tmp_path)
        assert await person.over() == 0, person.output
        assert re.search(r"frame of \d+ bytes: 11 ", person.output), person.output
        assert person.output.endswith("you left\n")
        refused = Program(["/bin/sh", "-c", line.replace("--guest", "--ticket")], tmp_path)
        assert await refused.over() == 1
        assert refused.output.startswith("ERROR auth_failed: ")
        await shown.says(r"sessions: 1[01] ")  # bots, and the probe
        await shown.says(r"added latency: -?[\d.]+ ms")
        assert await shown.end() == 0, shown.output
    finally:
        await shown.end()
    assert re.search(
        r"Done in \d+ s: [1-9]\d sessions \(1 auth_failed, [1-9]\d left\)", shown.output
    )
    assert "Trouble" not in shown.output
