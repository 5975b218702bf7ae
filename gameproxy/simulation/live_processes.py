"""The processes of a real world: proxies and game servers. None outlives its world."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import gameproxy
from gameproxy.config import Config
from gameproxy.farm import LinuxProcesses, ProcessName
from gameproxy.simulation.handles import ServerHandle
from gameproxy.simulation.states import ListedState

LOOPBACK: Final = "127.0.0.1"
LISTENS: Final = "listens at port {}"
"""What a game server prints, with its port."""
END_TIME: Final = 10.0
"""Seconds in which processes must end when they are asked to."""
TAIL: Final = 5
"""Lines of a process's output that are shown when something has gone wrong."""
_LISTENS: Final = re.compile(LISTENS.format(r"(\d+)"))
_SERVES: Final = re.compile(rf"gameproxy serves .* at {re.escape(LOOPBACK)}:(\d+)")


class Premises:
    """The folder of a world, and its processes.

    :ivar database: the farm's.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="gameproxy-live-")
        self.folder = Path(self._folder.name)
        self.database = self.folder / "farm.db"
        self._children: list[Child] = []

    def spawn(self, name: str, arguments: Sequence[str]) -> Child:
        """Start a Python program."""
        output = self.folder / f"{name}-{len(self._children)}.log"
        child = Child([sys.executable, *arguments], self.folder, output)
        self._children.append(child)
        return child

    def started(self) -> dict[str, ProcessName]:
        """The processes of the game servers that proxies have started and that are not closed, by id."""
        if not self.database.exists():
            return {}
        with closing(sqlite3.connect(self.database, timeout=10)) as database:
            rows = database.execute(
                "SELECT id, pid, process_started, place FROM game_servers"
                " WHERE state <> 'closed' AND pid IS NOT NULL ORDER BY id"
            ).fetchall()
        return {id: ProcessName(*process) for id, *process in rows}

    def clear(self) -> None:
        """End all processes, and remove the folder.

        Proxies are ended first: they would start game servers again.
        """
        _end_all(
            [child.signal for child in self._children],
            lambda: any(child.is_alive for child in self._children),
        )
        processes = LinuxProcesses()
        started = list(self.started().values())
        _end_all(
            [lambda number, name=name: processes.signal(name, number) for name in started],  # type: ignore[misc]  # its default is its type
            lambda: not all(processes.is_gone(name) for name in started),
        )
        self._folder.cleanup()


class Child:
    """A program in a process of its own, whose output goes to a file."""

    def __init__(self, arguments: Sequence[str], folder: Path, output: Path) -> None:
        self._output = output
        source = str(Path(gameproxy.__file__).parents[1])
        paths = filter(None, (source, os.environ.get("PYTHONPATH")))
        with output.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 - a program of gameproxy's
                arguments,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the one who tests
            )

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._process.kill()
        self._process.wait()


class LiveProxy:
    """A real proxy, run by ``twist``.

    :param config: gives its configuration when it is started.
    """

    def __init__(self, number: int, premises: Premises, config: Callable[[], Config]) -> None:
        self.number = number
        self.child: Child | None = None
        self.is_wanted = False
        """Whether it is to run: then it must not end."""
        self._premises = premises
        self._config = config
        self._port = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect, which stays the same when it is started again."""
        return LOOPBACK, self._port

    @property
    def serves(self) -> bool:
        """Whether it has started."""
        found = _SERVES.search(self.output)
        if found is not None:
            self._port = int(found[1])
        return self.is_alive and found is not None

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and self.child.is_alive

    @property
    def output(self) -> str:
        """What it has logged since it was started."""
        return "" if self.child is None else self.child.output

    def start(self) -> None:
        """Start it, for the first time or again."""
        config = self._config()
        listen = (f"tcp:{self._port}:interface={LOOPBACK}",)
        proxy = config.proxy.model_copy(update={"listen": listen})
        file = config.folder / f"proxy{self.number}.toml"
        file.write_text(as_toml(config.model_copy(update={"proxy": proxy})), "utf-8")
        twist = ["-m", "twisted", "--log-format", "text"]  # which is JSON where nobody looks on
        arguments = [*twist, "gameproxy", "--config", str(file)]
        self.child = self._premises.spawn(f"proxy{self.number}", arguments)
        self.is_wanted = True

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.is_wanted = False
        if self.child is not None:
            self.child.kill()

    def heal(self) -> None:
        """Start it again if it was killed."""
        if not self.is_alive:
            self.start()


class LiveServer(ServerHandle):
    """A real game server that no proxy starts.

    :param key: its own, 32 bytes.
    """

    def __init__(self, premises: Premises, state: ListedState, key: bytes) -> None:
        super().__init__(self._send, self._run)
        self._premises = premises
        self._state = state
        self._child: Child | None = None
        self._port = 0
        self._key_file = premises.folder / f"server-{state.id}.key"
        self._key_file.touch(0o600)
        self._key_file.write_text(key.hex())

    @property
    def port(self) -> int:
        """Where it listens; 0 until it does for the first time."""
        if self._port == 0 and self._child is not None:
            found = _LISTENS.search(self._child.output)
            self._port = 0 if found is None else int(found[1])
        return self._port

    @property
    def listens(self) -> bool:
        """Whether it does now."""
        child = self._child
        return child is not None and child.is_alive and bool(_LISTENS.search(child.output))

    def heal(self) -> None:
        """Start it again if it has ended, and let it go on if it hangs."""
        if self._child is not None and self._child.is_alive:
            self.go_on()
        else:
            self._run()

    def _run(self) -> None:
        state = self._state
        if self._child is not None and self._child.is_alive:
            raise ValueError(f"game server {state.id} runs")
        module = "gameproxy.simulation.live_server"
        arguments = [state.id, str(self._key_file), str(self._port), str(state.capacity)]
        self._child = self._premises.spawn(state.id, ["-m", module, *arguments])

    def _send(self, number: int) -> None:
        if self._child is None:
            return
        if number == signal.SIGKILL:
            self._child.kill()
        else:
            self._child.signal(number)


def as_toml(config: Config) -> str:
    """The file of a configuration."""
    document = config.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    return "".join(f"{key} = {_toml(value)}\n" for key, value in document.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # strings, numbers and booleans are the same in both


def _end_all(signals: Sequence[Callable[[int], object]], runs: Callable[[], bool]) -> None:
    """End processes: ask them to, then make them."""
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        for send in signals:
            send(number)
        deadline = time.monotonic() + (0 if number == signal.SIGCONT else END_TIME)
        while runs() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not runs():
            return
