"""What the program and user space share: one :class:`Record` for each direction of each pair, as in relay.bpf.c."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from gameproxy.framing import FrameFormat, Verdict
from gameproxy.messages import RESERVED_BELOW

NEVER: Final = (1 << 64) - 1
"""A number of bytes that no stream reaches."""
_NS: Final = 10**9
_COST_UNITS: Final = 1024  # of a nanosecond
_LONGEST: Final = (
    86_400 * _NS
)  # that a unit costs, or a burst lasts: what is above is as good as this


class Stop(IntEnum):
    """Why a lane leaves what arrives to user space."""

    HEADER = 1
    """A header, or the byte after it, has come only in part."""
    FRAME = 2
    """A frame has come that only user space can judge: one of a reserved type, or a bad one."""
    BACKLOG = 3
    """The other side takes too little."""
    FRAMES = 4
    """More frames have come than the limit allows."""
    BYTES = 5
    """More bytes have come than the limit allows."""
    ASKED = 6
    """User space has asked for it."""
    LOST = 7
    """What has come is not what comes next in the stream, or it could not be made so: the connection is broken."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a direction may carry.

    :param rate: frames or bytes a second, more than 0.
    :param burst: so many at once, 1 or more.
    :param enforced: whether the kernel stops at what is over the limit; else it only counts that.
    """

    rate: float
    burst: float
    enforced: bool = True


class Account(Protocol):
    """A limit and how far it is used up, outside of the kernel."""

    limit: Limit
    ahead: float
    """Seconds by which what has come is ahead of the rate; 0 when the whole burst is free."""

    def count(self, units: int) -> None:
        """So many have passed that were too many, as the limit is not enforced."""
        ...


class Bucket(ctypes.Structure):
    """An :class:`Account` in the kernel."""

    cost: int
    burst: int
    busy_until: int
    over: int
    enforced: int
    _fields_ = [
        ("cost", ctypes.c_uint64),
        ("burst", ctypes.c_uint64),
        ("busy_until", ctypes.c_uint64),
        ("over", ctypes.c_uint64),
        ("enforced", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    ]

    def fill(self, limit: Limit) -> None:
        """Begin with the whole burst free."""
        self.cost = max(1, min(round(_NS * _COST_UNITS / limit.rate), _LONGEST * _COST_UNITS))
        # Rounded up, so that the whole burst fits when each unit's cost was rounded.
        self.burst = min(-(-int(limit.burst * self.cost) // _COST_UNITS), _LONGEST)
        self.enforced = limit.enforced

    @property
    def ahead(self) -> float:
        """As of an :class:`Account`."""
        return max(0, self.busy_until - time.monotonic_ns()) / _NS

    @ahead.setter
    def ahead(self, seconds: float) -> None:
        self.busy_until = time.monotonic_ns() + round(seconds * _NS)


class Record(ctypes.Structure):
    """One direction of a pair; relay.bpf.c says what each field is."""

    sink: int
    backlog_most: int
    value_least: int
    value_most: int
    adjustment: int
    length_offset: int
    passing: int
    field_size: int
    is_varint: int
    is_little: int
    is_looked_at: int
    frame_bucket: Bucket
    byte_bucket: Bucket
    asked: int
    lost: int
    resume_at: int
    resume_remaining: int
    stopped: int
    is_based: int
    remaining: int
    begun: int
    bytes: int
    left: int
    buffers: int
    next: int
    has_begun: int
    cookie: int
    _fields_ = [
        ("sink", ctypes.c_uint32),
        ("backlog_most", ctypes.c_uint32),
        ("value_least", ctypes.c_uint64),
        ("value_most", ctypes.c_uint64),
        ("adjustment", ctypes.c_uint64),
        ("length_offset", ctypes.c_uint16),
        ("passing", ctypes.c_uint16),
        ("field_size", ctypes.c_uint8),
        ("is_varint", ctypes.c_uint8),
        ("is_little", ctypes.c_uint8),
        ("is_looked_at", ctypes.c_uint8),
        ("frame_bucket", Bucket),
        ("byte_bucket", Bucket),
        ("asked", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("resume_at", ctypes.c_uint64),
        ("resume_remaining", ctypes.c_uint64),
        ("is_based", ctypes.c_uint32),
        ("stopped", ctypes.c_uint32),
        ("untold", ctypes.c_uint32),
        ("base", ctypes.c_uint32),
        ("based_at", ctypes.c_uint64),
        ("remaining", ctypes.c_uint64),
        ("begun", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("left", ctypes.c_uint64),
        ("buffers", ctypes.c_uint64),
        ("next", ctypes.c_uint32),
        ("has_begun", ctypes.c_uint32),
        ("cookie", ctypes.c_uint64),
    ]

    @property
    def is_resuming(self) -> bool:
        """Whether the program will go on when something comes."""
        return self.resume_at != NEVER

    def describe(self, format: FrameFormat, verdicts: Mapping[int, Verdict] | None) -> None:
        """Fill in what frames look like, and which may pass.

        Python's integers have no end, the kernel's have: what does not fit 64 bits is left to user space to judge.
        """
        if format.length_bytes == "varint":
            self.is_varint, self.field_size = 1, format.varint_bytes
        else:
            self.is_varint, self.field_size = 0, format.length_bytes
        self.length_offset = format.length_offset
        self.is_little = format.byte_order == "little"
        self.adjustment = format.length_adjustment & NEVER
        # A body that ends before 2^63 bytes is enough for everybody, and its length overflows nowhere.
        longest = min(format.max_frame, (1 << 63) - 1)
        self.value_least = min(max(0, -format.length_adjustment), NEVER)
        self.value_most = max(0, min(longest - format.length_adjustment, NEVER))
        self.is_looked_at = verdicts is not None
        self.passing = 0
        for first, verdict in (verdicts or {}).items():
            if first < RESERVED_BELOW and verdict is Verdict.PASS:
                self.passing |= 1 << first
