"""What happened in a run, a line an event, and the hash of all of it: two runs were the same when their hashes are."""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import Final

_LINES_AT_ONCE: Final = 512


class Trace:
    """The lines of a run.

    :param keep: whether the lines are to be had afterwards; the hash is always.
    """

    def __init__(self, keep: bool = False) -> None:
        self.count = 0
        self._hash = sha256()
        self._pending: list[str] = []
        self._kept: deque[str] | None = deque() if keep else None

    def keep_last(self, most: int) -> None:
        """Keep the last lines, so many at most."""
        self._kept = deque(self._kept or (), most)

    def write(self, now: int, *words: object) -> None:
        """Add a line.

        :param now: microseconds of virtual time.
        :param words: what happened; nothing whose text differs from run to run.
        """
        self.count += 1
        self._pending.append(f"{now} {' '.join(map(str, words))}\n")
        if len(self._pending) >= _LINES_AT_ONCE:
            self._flush()

    def hexdigest(self) -> str:
        """The SHA-256 of all lines so far, each with a newline at its end."""
        self._flush()
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """All lines so far that were to be kept, with their newlines.

        :raises ValueError: they were not kept.
        """
        if self._kept is None:
            raise ValueError("this run kept no lines")
        self._flush()
        return list(self._kept)

    def _flush(self) -> None:
        self._hash.update("".join(self._pending).encode())
        if self._kept is not None:
            self._kept.extend(self._pending)
        self._pending.clear()
