"""Giving up the capabilities with which a program was started without being root (capabilities(7))."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522
"""Of the structures below (linux/capability.h): two words of 32 for each set."""


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def give_up_ambient() -> bool:
    """If this program has ambient capabilities, give up all that it has: what it starts has none then either.

    It is to be called before there are other threads, as each has capabilities of its own.

    :return: whether there were some.
    :raises OSError: it could not be done.
    """
    if not _ambient():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    if libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) or libc.capset(
        ctypes.byref(header), ctypes.byref(sets)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def _ambient() -> int:
    """The ambient capabilities, a bit each; none where the kernel does not know them."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapAmb:"):
            return int(line.split()[1], 16)
    return 0
