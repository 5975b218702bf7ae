"""Linux's bpf(2) through ctypes: what loading the program and keeping its maps takes, and no more.

The numbers and structures are those of linux/bpf.h; of each call's part of ``union bpf_attr`` only the fields that are
used are written down, and the kernel takes the others for zero.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final

CALL_NUMBERS: Final[Mapping[str, int]] = MappingProxyType({"x86_64": 321, "aarch64": 280})
"""The number of bpf(2), by what :func:`platform.machine` says."""

_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE = 0, 2, 3
_PROG_LOAD, _PROG_ATTACH, _PROG_RUN = 5, 8, 10
_ARRAY: Final = 2  # a type of map
_SYSCALL: Final = 31  # a type of program
_SLEEPABLE: Final = 1 << 4
_STREAM_VERDICT: Final = 5  # where a program is attached
_ATTEMPTS: Final = 10

_libc = ctypes.CDLL(None, use_errno=True)


class _Create(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class _Element(ctypes.Structure):
    _fields_ = [
        ("map", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Load(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("instruction_count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log", ctypes.c_uint64),
        ("kernel_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("unused", ctypes.c_uint8 * 72),
        ("fd_array", ctypes.c_uint64),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [
        ("target", ctypes.c_uint32),
        ("program", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class _Run(ctypes.Structure):
    _fields_ = [
        ("program", ctypes.c_uint32),
        ("returned", ctypes.c_int32),
        ("unused", ctypes.c_uint8 * 32),
        ("context_size", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("context", ctypes.c_uint64),
        ("context_out", ctypes.c_uint64),
    ]


def _failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    number = CALL_NUMBERS[platform.machine()]
    size = ctypes.sizeof(attributes)
    result: int = _libc.syscall(number, command, ctypes.byref(attributes), size)
    if result < 0:
        raise _failed(ctypes.get_errno())
    return result


def update(map: int, key: bytes, value: bytes) -> None:
    """Set an element of a map.

    :param map: its descriptor.
    :raises OSError: as bpf(2) says.
    """
    keys, values = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    _bpf(_MAP_UPDATE, _Element(map, ctypes.addressof(keys), ctypes.addressof(values), 0))


def delete(map: int, key: bytes) -> None:
    """Remove an element from a map.

    :raises OSError: as bpf(2) says; ``FileNotFoundError`` or ``EINVAL`` if there is none.
    """
    keys = ctypes.create_string_buffer(key)
    _bpf(_MAP_DELETE, _Element(map, ctypes.addressof(keys), 0, 0))


def attach_verdict(program: int, map: int) -> None:
    """Run a program for whatever arrives at the sockets in a map, for as long as the map exists.

    :raises OSError: as bpf(2) says.
    """
    _bpf(_PROG_ATTACH, _Attach(map, program, _STREAM_VERDICT, 0))


def run_loader(
    data: bytes, instructions: bytes, map_sizes: Sequence[int], program_count: int
) -> tuple[list[int], list[int]]:
    """Let a light skeleton's loader create its maps and load its programs (libbpf's ``bpf_load_and_run``).

    :param map_sizes: the most entries of each map, in order; 0 for what the program says itself.
    :return: the descriptors of the maps and of the programs.
    :raises OSError: as bpf(2) says.
    """
    for _ in range(_ATTEMPTS - 1):
        # The verifier, which takes most of the time, gives up when a signal comes.
        with suppress(BlockingIOError):
            return _run_loader(data, instructions, map_sizes, program_count)
    return _run_loader(data, instructions, map_sizes, program_count)


def _run_loader(
    data: bytes, instructions: bytes, map_sizes: Sequence[int], program_count: int
) -> tuple[list[int], list[int]]:
    class Map(ctypes.Structure):
        _fields_ = [
            ("descriptor", ctypes.c_int32),
            ("max_entries", ctypes.c_uint32),
            ("initial_value", ctypes.c_uint64),
        ]

    class Context(ctypes.Structure):
        _fields_ = [
            ("size", ctypes.c_uint32),
            ("flags", ctypes.c_uint32),
            ("log_level", ctypes.c_uint32),
            ("log_size", ctypes.c_uint32),
            ("log", ctypes.c_uint64),
            ("maps", Map * len(map_sizes)),
            ("programs", ctypes.c_int32 * program_count),
        ]

    context = Context()
    size = context.size = Context.programs.offset + 4 * program_count
    for one, entries in zip(context.maps, map_sizes, strict=True):
        one.max_entries = entries
    data_map = _bpf(_MAP_CREATE, _Create(_ARRAY, 4, len(data), 1, 0))
    try:
        update(data_map, bytes(4), data)
        program = _load_loader(instructions, data_map)
        try:
            run = _Run(program, context_size=size, context=ctypes.addressof(context))
            _bpf(_PROG_RUN, run)
        finally:
            os.close(program)
    finally:
        os.close(data_map)
    if run.returned < 0:
        raise _failed(-run.returned)
    return [one.descriptor for one in context.maps], list(context.programs)


def _load_loader(instructions: bytes, data_map: int) -> int:
    code = ctypes.create_string_buffer(instructions)
    license = ctypes.create_string_buffer(b"Dual BSD/GPL")  # bpftool's, which wrote it
    descriptors = (ctypes.c_int32 * 1)(data_map)
    return _bpf(
        _PROG_LOAD,
        _Load(
            _SYSCALL,
            len(instructions) // 8,
            ctypes.addressof(code),
            ctypes.addressof(license),
            flags=_SLEEPABLE,
            fd_array=ctypes.addressof(descriptors),
        ),
    )
