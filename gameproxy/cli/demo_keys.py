"""The keys that are pressed while ``gameproxy demo`` runs: read one by one, without Enter."""

from __future__ import annotations

import os
import re
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

READ_SIZE: Final = 1024
_KEY: Final = re.compile(rb"\x1b[\[O][0-9;]*([@-~])|\x1b|([ -~])")
_CUT_OFF: Final = re.compile(rb"\x1b(?:[\[O][0-9;]{0,8})?\Z")
_ARROWS: Final = {b"A": "up", b"B": "down"}


class KeyReader:
    """Tells keys from what a terminal sends for them."""

    def __init__(self) -> None:
        self._rest = b""

    def keys(self, data: bytes) -> list[str]:
        """The next keys: characters, ``up`` and ``down``; other keys are left out."""
        data = self._rest + data
        cut_off = _CUT_OFF.search(data)
        self._rest = b"" if cut_off is None else cut_off[0]
        found = []
        for match in _KEY.finditer(data[: len(data) - len(self._rest)]):
            final, character = match.groups()
            if character is not None:
                found.append(character.decode("ascii"))
            elif final in _ARROWS:
                found.append(_ARROWS[final])
        return found


@implementer(IReadDescriptor)
class Keyboard:
    """A terminal that gives keys instead of lines, until it is closed.

    Ctrl-C goes on to interrupt; Ctrl-S, Ctrl-Z and Ctrl-\\ do nothing, as the proxy and its game servers would stand
    still, or be left behind.

    :param fd: the terminal, in whose foreground this process is.
    :param on_key: called with each key; see :class:`KeyReader`.
    :param on_gone: called when there is no terminal any more.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        fd: int,
        on_key: Callable[[str], None],
        on_gone: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._fd = fd
        self._on_key = on_key
        self._on_gone = on_gone
        self._reader = KeyReader()
        self._before = termios.tcgetattr(fd)
        self._open = True
        termios.tcsetattr(fd, termios.TCSADRAIN, _by_key(self._before))
        reactor.addReader(self)

    def close(self) -> None:
        """Let the terminal be as it was. Doing it twice changes nothing."""
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    # What the reactor calls

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "keyboard"

    def doRead(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        for key in self._reader.keys(data):
            self._on_key(key)

    def connectionLost(self, reason: Failure) -> None:
        self._gone()

    def _gone(self) -> None:
        self.close()
        self._on_gone()


def keys_may_be_read(fd: int) -> bool:
    """Whether it is a terminal that is this process's to read: in the background it is not."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def _by_key(settings: list[Any]) -> list[Any]:
    """A terminal's settings, changed so that it gives keys."""
    input_flags, output_flags, control_flags, local_flags, *speeds, characters = settings
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    characters[termios.VSUSP] = characters[termios.VQUIT] = b"\0"  # which no key gives
    return [
        input_flags & ~termios.IXON,
        output_flags,
        control_flags,
        local_flags & ~(termios.ICANON | termios.ECHO),
        *speeds,
        characters,
    ]
