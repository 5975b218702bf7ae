"""``gameproxy farm stop`` where no proxy can be asked to do it: the command does itself what a proxy would do."""

from __future__ import annotations

import signal
import sqlite3
import time
from typing import Final

from gameproxy.cli.farm_database import writing
from gameproxy.cli.reporting import CommandFailed, Report
from gameproxy.config import Config
from gameproxy.farm import LinuxProcesses, Processes, ProcessName, registry
from gameproxy.farm.keeper import STOP_GRACE
from gameproxy.farm.registry import StartedServer
from gameproxy.farm.starter import key_file

KILL_TIME: Final = 5.0
"""Seconds in which a process that was killed is gone."""
_PAUSE: Final = 0.05
"""Seconds between two looks whether it is gone."""


def stop_without_proxy(config: Config, name: str) -> Report:
    """End a started game server: ask it to, make it after its ``stop_grace``, and close its row.

    :raises CommandFailed: that cannot be done from here; then nothing was done, unless it says so.
    """
    processes = LinuxProcesses()
    with writing(config.database_path) as cursor:
        server, process = _find(cursor, name)
        _ensure_within_reach(processes, name, process)
        gone = processes.is_gone(process)
        if not gone:
            registry.set_state(cursor, name, server.state, "draining")
    # When its process has ended before, the number of its group may be another's by now.
    killed = not gone and _end(processes, process, _grace(config, server.game))
    if not processes.is_gone(process):
        raise CommandFailed(f"{name}: process {process.pid} was killed and has not ended yet")
    with writing(config.database_path) as cursor:
        registry.close_server(cursor, name, time.time(), chance=0.0)
    _remove_key(config, name)
    if gone:
        done = f"process {process.pid} had ended already"
    elif killed:
        done = f"process {process.pid} did not end when asked, and was killed"
    else:
        done = f"process {process.pid} was asked to end, and has ended"
    return Report(
        {"server": name, "state": "closed", "killed": killed},
        [f"No proxy could be asked. {name}: {done}; it is closed now."],
    )


def _find(cursor: sqlite3.Cursor, name: str) -> tuple[StartedServer, ProcessName]:
    for server in registry.started_servers(cursor):
        if server.id == name and server.process is not None:
            return server, server.process
    raise CommandFailed(f"{name}: its process is not known: a proxy that is started sees to it")


def _ensure_within_reach(processes: Processes, name: str, process: ProcessName) -> None:
    if process.place != processes.me().place:
        raise CommandFailed(
            f"{name}: process {process.pid} is of another machine or container, or of a time before this machine was"
            " started: end it there, or start a proxy, which sees to its row"
        )
    if not processes.is_gone(process) and not processes.signal(process, 0):
        raise CommandFailed(
            f"{name}: process {process.pid} cannot be signalled by this user: it belongs to another"
        )


def _grace(config: Config, game: str) -> float:
    """Seconds that a game server of this game gets to end by itself."""
    return next((one.stop_grace for one in config.games if one.name == game), STOP_GRACE)


def _end(processes: Processes, process: ProcessName, grace: float) -> bool:
    """End a process and its group; whether it had to be killed."""
    processes.signal(process, signal.SIGTERM)
    if _is_over(processes, process, grace):
        return False
    processes.signal(process, signal.SIGKILL)
    _is_over(processes, process, KILL_TIME)
    return True


def _is_over(processes: Processes, process: ProcessName, patience: float) -> bool:
    """Whether nothing is left of a process and its group within so many seconds."""
    give_up = time.monotonic() + patience
    while processes.signal(process, 0):
        if time.monotonic() >= give_up:
            return False
        time.sleep(_PAUSE)
    return True


def _remove_key(config: Config, name: str) -> None:
    try:
        key_file(config.database_path, name).unlink(missing_ok=True)
    except OSError as error:
        raise CommandFailed(f"{name}: has ended, but its key cannot be removed: {error}") from None
