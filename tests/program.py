"""A program in a process of its own, for tests with a real reactor."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0
"""Seconds to wait for a program at most."""
TERMINAL = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}


class Program(ProcessProtocol):
    """A program that runs. To be ended by whoever starts it, with :meth:`end`.

    :param in_terminal: whether its input and output are a terminal of its own, of 80 columns and 24 lines.
    :param descriptors: of this process, by the numbers that they have in the program; beside the three that all have.
    :ivar output: what it has written, to standard output and standard error.
    :ivar ended: fires with the exit status, negative after a signal.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        in_terminal: bool = False,
        descriptors: Mapping[int, int] | None = None,
    ) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._awaited: tuple[re.Pattern[str], Deferred[re.Match[str]]] | None = None
        reactor.spawnProcess(  # type: ignore[attr-defined]  # the reactor is a module to mypy
            self,
            arguments[0],
            arguments,
            env={**os.environ, **(TERMINAL if in_terminal else {}), **(environment or {})},
            path=str(folder),
            usePTY=in_terminal,
            **({"childFDs": {0: "w", 1: "r", 2: "r", **descriptors}} if descriptors else {}),
        )

    def press(self, keys: bytes) -> None:
        """Press keys at its terminal, or write to its input."""
        self.transport.write(keys)

    def says(self, pattern: str, within: float = PATIENCE) -> Deferred[re.Match[str]]:
        """Fires when the output has something that matches; fails when it ends before, or it takes too long.

        :param within: seconds.
        """
        found: Deferred[re.Match[str]] = Deferred()
        self._awaited = (re.compile(pattern), found)
        self._look()
        return found.addTimeout(within, reactor, self._too_late)

    def end(self, signal: str = "TERM") -> Deferred[int]:
        """Send it a signal, if it runs; fires with the exit status."""
        if not self.ended.called:
            self.transport.signalProcess(signal)
        return self.over()

    def over(self, within: float = PATIENCE) -> Deferred[int]:
        """Fires with the exit status when it has ended by itself."""
        waiting: Deferred[int] = Deferred()
        self.ended.addCallback(lambda status: (waiting.callback(status), status)[1])
        return waiting.addTimeout(within, reactor, self._too_late)

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")
        self._look()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        status = -value.signal if value.signal is not None else value.exitCode
        if self._awaited is not None:
            _, found = self._awaited
            self._awaited = None
            found.errback(AssertionError(f"it has ended with {status}: {self.output}"))
        self.ended.callback(status)

    def _look(self) -> None:
        if self._awaited is not None:
            pattern, found = self._awaited
            match = pattern.search(self.output)
            if match is not None:
                self._awaited = None
                found.callback(match)

    def _too_late(self, result: object, seconds: float) -> None:
        raise AssertionError(f"not within {seconds} s: {self.output}")
