"""Standard input and output of a command that a person talks through."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.cli.terminal import printable

LONGEST_LINE: Final = 65_536
"""Bytes that a line of input may have."""
_CLEAR: Final = "\r\x1b[K"


@implementer(IHalfCloseableProtocol, IPushProducer)
class Console(Protocol):
    """Lines in and out. Nothing is read until somebody wants the lines.

    What comes from outside is escaped. It is its own output's producer: what that has it pause is those who
    :meth:`printed` makes wait.

    :param is_terminal: whether the output is one, on which a line of progress may be written over.
    :ivar on_line: called with each line, without its end.
    :ivar on_no_more: called when nobody can type or read any more, with the reason, or ``""`` for the end of the input.
    :ivar has_ended: whether there are no more lines.
    :ivar is_full: whether what was said is not taken.
    :ivar closed: fires when all is printed.
    """

    transport: StandardIO

    def __init__(self, is_terminal: bool) -> None:
        self.on_line: Callable[[bytes], None] = _ignore
        self.on_no_more: Callable[[str], None] = _ignore
        self.has_ended = False
        self.closed: Deferred[None] = Deferred()
        self._is_terminal = is_terminal
        self._in_progress = False
        self._line = b""
        self._wanted = False
        self.is_full = False
        self._waiting: list[Deferred[None]] = []

    # To be called

    def say(self, text: str) -> None:
        """Print a line; what a terminal would obey is escaped."""
        clear = _CLEAR if self._in_progress else ""
        self._in_progress = False
        self.transport.write(f"{clear}{printable(text)}\n".encode())

    def progress(self, text: str, on_terminal_only: bool = False) -> None:
        """Say how it goes on: on a terminal in one line, which the next text replaces. Not said while what was said
        before is not taken."""
        if self.is_full:
            return
        if self._is_terminal:
            self._in_progress = True
            room = shutil.get_terminal_size().columns - 1  # what is longer could not be replaced
            self.transport.write(f"{_CLEAR}{printable(text)[:room]}".encode())
        elif not on_terminal_only:
            self.say(text)

    def want_lines(self, wanted: bool) -> None:
        """Whether lines are to be read."""
        self._wanted = wanted
        self._read_or_not()

    async def printed(self) -> None:
        """Wait while what was said is not taken."""
        if self.is_full and not self.closed.called:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def close(self) -> None:
        """Print what is left, and end."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # What standard input and output tell

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self._read_or_not()

    def dataReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self.on_line(line)
        if len(self._line) > LONGEST_LINE:
            self._no_more(f"a line may have {LONGEST_LINE} bytes")

    def readConnectionLost(self) -> None:
        if self._line:  # which has no end
            self.on_line(self._line)
        self._no_more("")

    def writeConnectionLost(self) -> None:
        self._no_more("nobody reads this any more")

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.has_ended = True
        self.closed.callback(None)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def stopProducing(self) -> None:
        """The output is closed, which :meth:`connectionLost` tells too."""

    def _no_more(self, why: str) -> None:
        self._line = b""
        self.has_ended = True
        self.on_no_more(why)

    def _read_or_not(self) -> None:
        if self._wanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()


def _ignore(what: object) -> None:
    """Nobody is there whom it concerns."""
