"""The log as JSON lines, for programs: one object a line, with flat keys.

``twist --log-format json`` writes all that Twisted knows of an event, nested, each after a record separator (RFC 7464).
Here is what one looks for, as jq and those that ship logs expect it.
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.escaping import printable

TEXT_MAX: Final = 4096
"""Characters of a text at most, of a traceback the last ones."""
KEYS_MAX: Final = 64
"""Keys of one event at most."""
STANDARD_OUTPUT: Final = "-"
_OWN: Final = ("time", "level", "namespace", "message", "failure")
"""Keys that events cannot set."""
_NOT_WANTED: Final = ("why", "system", "format", "isError")
"""A part of the message, and what observers of Twisted's old kind add to events."""


def json_line(event: LogEvent) -> str:
    """An event as a line of ASCII.

    It has ``time`` (RFC 3339), ``level``, ``namespace`` and ``message``; ``failure``, a traceback, if there is one; and
    all values of its own that are texts, numbers, booleans or null.
    """
    time = datetime.fromtimestamp(float(event.get("log_time", 0.0)), UTC)
    line: dict[str, object] = {
        "time": time.isoformat(timespec="milliseconds"),
        "level": getattr(event.get("log_level"), "name", None),
        "namespace": event.get("log_namespace"),
        "message": printable(formatEvent(event) or "")[:TEXT_MAX],
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["failure"] = failure.getTraceback()[-TEXT_MAX:]
    for name, value in list(event.items())[:KEYS_MAX]:
        if name.startswith("log_") or name in (*_OWN, *_NOT_WANTED):
            continue
        if isinstance(value, str):
            line[name] = str(value)[:TEXT_MAX]
        elif isinstance(value, float):
            line[name] = value if math.isfinite(value) else None
        elif value is None or isinstance(value, bool | int):
            line[name] = value
    # All but printable ASCII is escaped by it: nothing that a terminal would obey is in the file.
    return json.dumps(line)


@implementer(ILogObserver)
class JsonLog:
    """Writes what is logged in this process to a file too.

    :param path: where, appended to; or :data:`STANDARD_OUTPUT`. It is opened once: a program that turns logs over has
        to copy and truncate it.
    """

    _log = Logger()

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._lost = 0

    def start(self) -> None:
        """Begin.

        :raises OSError: the file cannot be opened.
        """
        if self._descriptor is None:
            self._descriptor = (
                os.dup(1)  # sys.stdout is a logger itself under twist
                if self._path is None
                else os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            )
            globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Write no more."""
        if self._descriptor is not None:
            globalLogPublisher.removeObserver(self)
            os.close(self._descriptor)
            self._descriptor = None

    def __call__(self, event: LogEvent) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, f"{json_line(event)}\n".encode("ascii"))
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                self._log.error(
                    "The log {path!r} cannot be written: {error}",
                    path=str(self._path or STANDARD_OUTPUT),
                    error=str(error),
                )
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._log.warn("The log can be written again; {lost} lines are lost.", lost=lost)
