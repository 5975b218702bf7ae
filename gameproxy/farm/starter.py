"""How a game server is started: a process in a session of its own that outlives the proxy once it is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.config import GameConfig
from gameproxy.farm.processes import Processes, ProcessName

LISTEN_HOST: Final = "127.0.0.1"
"""Where started game servers listen: they run on this machine, and only proxies have business there."""
LOGS_KEPT: Final = 50
"""Of how many game servers of each game that have ended the output is kept."""
_GATE: Final = 3
"""The descriptor at which a process waits until it may become the game server."""
_LAUNCHER: Final = f"""\
import os, signal, sys
os.setsid()
if not os.read({_GATE}, 1):
    sys.exit("not run: the proxy ended before the farm knew this process, or the farm wants it no more")
os.close({_GATE})
# Python ignores these, and what is ignored stays so in the program that takes its place.
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    sys.exit(f"{{sys.argv[1]}} cannot be run: {{error.strerror}}")
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process that is to become a game server, and waits. If its proxy ends before the answer, it ends too.

    :param answer: called once, with whether it may: else it ends.
    """

    process: ProcessName
    answer: Callable[[bool], None]


def key_file(database: Path, server: str) -> Path:
    """Where a started game server of this database finds its key."""
    return _folder_of(database) / f"{server}.key"


def _folder_of(database: Path) -> Path:
    return database.with_suffix(".servers")


class GameServerStarter:
    """Starts game servers.

    :param reactor: provides IReactorProcess.
    :param folder: the configuration's folder, where they start.
    :param database: the database's file; keys and output go to a folder beside it.
    :param environment: what they inherit.
    :param key_for: gives a game server's 32-byte key.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        processes: Processes,
        folder: Path,
        database: Path,
        environment: Mapping[str, str],
        key_for: Callable[[str], bytes],
    ) -> None:
        self._reactor = reactor
        self._processes = processes
        self._folder = folder.absolute()
        self._database = database.absolute()
        self._files = _folder_of(self._database)
        self._environment = environment
        self._key_for = key_for

    def start(self, server: str, game: GameConfig, on_exit: Callable[[], None]) -> Launch:
        """Start a process for the game server that has a row in state ``starting``.

        :param on_exit: called when it has ended.
        :raises OSError: it cannot be started.
        """
        self._files.mkdir(mode=0o700, exist_ok=True)
        self._remove_old_logs(game.name)
        key_file = self._key_file(server)
        _write_private(key_file, self._key_for(server).hex() + "\n")
        output_file = self._files / f"{server}.log"
        output = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            transport = self._reactor.spawnProcess(
                _Exit(server, output_file, on_exit),
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, *self._command(game)],
                env={**self._environment, **self._announce(server, game, key_file)},
                path=str(self._folder),
                childFDs={0: nothing, 1: output, 2: output, _GATE: "w"},
            )
        finally:
            os.close(nothing)
            os.close(output)
        return Launch(self._processes.name(transport.pid), partial(_answer, transport))

    def clean_up(self, server: str) -> None:
        """It has ended, whoever started it: its key is not needed any more. Its output stays for a while."""
        self._key_file(server).unlink(missing_ok=True)

    def _remove_old_logs(self, game: str) -> None:
        """Keep the newest of those whose servers have ended. A server has its key, made before its log, until then."""
        try:
            ended = [
                log
                for log in self._files.glob("*.log")
                if log.stem.rpartition("-")[0] == game and not self._key_file(log.stem).exists()
            ]
            ended.sort(key=lambda log: (log.stat().st_mtime, log.name), reverse=True)
            for log in ended[LOGS_KEPT:]:
                log.unlink()
        except FileNotFoundError:
            pass  # another proxy does the same
        except OSError as error:
            self._log.error("old output of game servers cannot be removed: {error}", error=error)

    def _key_file(self, server: str) -> Path:
        return key_file(self._database, server)

    def _command(self, game: GameConfig) -> list[str]:
        program, *arguments = game.command
        if "/" in program:
            program = str(self._folder / program)
        return [program, *arguments]

    def _announce(self, server: str, game: GameConfig, key_file: Path) -> dict[str, str]:
        """The environment that docs/protocol, "What a started game server gets" promises."""
        return {
            "GAMEPROXY_SERVER_ID": server,
            "GAMEPROXY_GAME": game.name,
            "GAMEPROXY_FARM": f"sqlite:///{self._database}",
            "GAMEPROXY_SECRET_FILE": str(key_file),
            "GAMEPROXY_HOST": LISTEN_HOST,
            "GAMEPROXY_PORT": "0",
            "GAMEPROXY_CAPACITY": str(game.capacity),
        }


class _Exit(ProcessProtocol):
    """Waits for the end of a game server."""

    _log = Logger()

    def __init__(self, server: str, output: Path, on_exit: Callable[[], None]) -> None:
        self._server = server
        self._output = output
        self._on_exit = on_exit

    def processEnded(self, reason: Failure) -> None:
        level = self._log.info if reason.check(ProcessDone) else self._log.warn
        level(
            "game server {server} has ended: {reason} Its output is in {output}",
            server=self._server,
            reason=reason.getErrorMessage(),
            output=str(self._output),
        )
        self._on_exit()


def _answer(transport: Any, may_run: bool) -> None:
    if may_run:
        try:
            transport.writeToChild(_GATE, b"\n")
        except KeyError:
            return  # it has ended meanwhile
    transport.closeChildFD(_GATE)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
