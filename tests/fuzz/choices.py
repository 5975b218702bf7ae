"""What a target makes of the bytes it is given: choices first, then what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes bytes from the front. When there are no more, each is 0: short inputs are whole ones, too."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def byte(self) -> int:
        """The next."""
        first, self._data = self._data[:1], self._data[1:]
        return first[0] if first else 0

    def one_of(self, options: Sequence[T]) -> T:
        """One of some things."""
        return options[self.byte() % len(options)]

    def sizes(self) -> list[int]:
        """In which pieces something comes: sizes in bytes, to be taken again and again."""
        return [1 + self.byte() for _ in range(self.byte() % 8)] or [1 << 16]

    def take(self, size: int) -> bytes:
        """So many bytes, or all that there are."""
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def pieces(stream: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """A stream in pieces; those of a long one are larger, so that it is not long in coming."""
    at, wanted, scale = 0, cycle(sizes), 1 + len(stream) // 1024
    while at < len(stream):
        size = scale * next(wanted)
        yield stream[at : at + size]
        at += size
