"""A BPF ring buffer, read without libbpf (the layout is that of the kernel's Documentation/bpf/ringbuf.rst)."""

from __future__ import annotations

import mmap
import struct
from typing import Final

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_HEAD: Final = struct.Struct("@II")
_NUMBER: Final = struct.Struct("@Q")  # native, so that it is read and written at once
RECORD_SIZE: Final = _HEAD.size + _NUMBER.size
"""Bytes of one number in the ring."""


class Ring:
    """Numbers of 64 bits that the kernel writes and this process reads.

    :param descriptor: of the map. It is readable when there is something to read; it stays the caller's.
    :param size: bytes of the map: a power of two, and whole pages.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._mask = size - 1
        # One page is the reader's position; then, for reading only, the writer's and all records, mapped twice, so
        # that a record that goes round the end is in one piece.
        self._mine = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._theirs = mmap.mmap(
            descriptor,
            mmap.PAGESIZE + 2 * size,
            prot=mmap.PROT_READ,
            offset=mmap.PAGESIZE,
        )

    def take(self) -> list[int]:
        """What has come."""
        taken: list[int] = []
        (at,) = _NUMBER.unpack_from(self._mine)
        (end,) = _NUMBER.unpack_from(self._theirs)
        while at < end:
            place = mmap.PAGESIZE + (at & self._mask)
            length, _ = _HEAD.unpack_from(self._theirs, place)
            if length & _BUSY:
                break
            if not length & _DISCARDED:
                taken.append(_NUMBER.unpack_from(self._theirs, place + _HEAD.size)[0])
            at += RECORD_SIZE
        _NUMBER.pack_into(self._mine, 0, at)
        return taken

    def close(self) -> None:
        """Read no more."""
        self._mine.close()
        self._theirs.close()
