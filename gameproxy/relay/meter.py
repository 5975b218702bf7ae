"""How much a client sends while it relays: too much, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Protocol, overload

from twisted.internet.interfaces import IReactorTime

from gameproxy.config import LimitConfig, LimitsConfig
from gameproxy.framing import FrameError, FrameScanner
from gameproxy.limit_counts import LimitCounts
from gameproxy.relay.sockmap.layout import Limit
from gameproxy.steady_time import SteadyTime

IDLE_LOOKS: Final = 8
"""How often it is looked whether something has come, in the time in which nothing may."""
_ROUNDING: Final = 1e-6
"""Seconds that sums of seconds may be off."""


class Exceeded(FrameError):
    """A frame came that was one too many; the text is for people.

    :ivar limit: the name of the limit.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class Scanning(Protocol):
    """Looks at a stream chunk by chunk, as :class:`gameproxy.framing.FrameScanner` does."""

    @overload
    def scan(self, data: bytes, /) -> bytes: ...
    @overload
    def scan(self, data: memoryview, /) -> bytes | memoryview: ...


class TokenBucket:
    """A limit, and how far it is used up: what is let in takes its time at the rate, up to a burst ahead of now. The
    kernel keeps it while it has the session.

    :param name: of the limit, in the configuration.
    :param unit: what is counted, for people.
    :param counts: has what was too many.
    """

    __slots__ = (
        "_busy_until",
        "_cost",
        "_counts",
        "_most",
        "_time",
        "_was_broken",
        "limit",
        "name",
        "unit",
    )

    def __init__(
        self, name: str, unit: str, limit: Limit, time: SteadyTime, counts: LimitCounts
    ) -> None:
        self.name = name
        self.unit = unit
        self.limit = limit
        self._time = time
        self._counts = counts
        self._cost = 1 / limit.rate
        self._most = limit.burst / limit.rate
        self._busy_until = 0.0
        self._was_broken = False

    def take(self, units: int, now: float, since: float) -> int:
        """So many have come.

        :param since: how long ago they may have been sent: ``now`` or before.
        :return: how many of them are too many. Those are not held against the next.
        """
        busy_until = max(self._busy_until, since) + units * self._cost
        over = busy_until - now - self._most
        if over <= _ROUNDING:
            self._busy_until = busy_until
            return 0
        self._busy_until = now + self._most
        return ceil(over * self.limit.rate)

    @property
    def ahead(self) -> float:
        """Seconds by which what has come is ahead of the rate."""
        return max(0.0, self._busy_until - self._time.seconds())

    @ahead.setter
    def ahead(self, seconds: float) -> None:
        self._busy_until = self._time.seconds() + seconds

    def count(self, units: int) -> None:
        """So many were too many."""
        self._counts.count(self.name, units, is_first=not self._was_broken)
        self._was_broken = True

    def exceeded(self) -> Exceeded:
        """What its breaking ends the session with."""
        limit = self.limit
        message = f"more than {limit.rate:g} {self.unit} a second came, and {limit.burst:g} at once: send less"
        return Exceeded(self.name, message)


class Meter:
    """Scans what a client sends, and stops it at a read with which too much has come: nothing of that passes.

    What waited here while the game server was slow is not held against the client: after a pause in which nothing was
    read, all that is read in as much time again may have been sent in the pause.

    :ivar buckets: of frames, and of bytes.
    """

    __slots__ = ("_forgiving", "_paused_at", "_scanner", "_time", "buckets")

    def __init__(
        self,
        scanner: FrameScanner,
        time: SteadyTime,
        frames: TokenBucket | None,
        bytes: TokenBucket | None,
    ) -> None:
        self._scanner = scanner
        self._time = time
        self.buckets = frames, bytes
        self._paused_at: float | None = None
        self._forgiving: tuple[float, float] | None = None
        """From when on what comes may have been sent, and until when that is so."""

    @overload
    def scan(self, data: bytes, /) -> bytes: ...
    @overload
    def scan(self, data: memoryview, /) -> bytes | memoryview: ...
    def scan(self, data: bytes | memoryview, /) -> bytes | memoryview:
        """Look at the next chunk, as the scanner does."""
        scanner = self._scanner
        mark = scanner.mark()
        passing = scanner.scan(data)
        if scanner.stopped is not None:
            return passing
        now = since = self._time.seconds()
        if self._forgiving is not None and self._forgives(now):
            since = self._forgiving[0]
        frames, bytes_ = self.buckets
        if frames is not None and self._breaks(frames, scanner.begun - mark.begun, now, since):
            scanner.stop_at(mark, frames.exceeded())
            return b""
        if bytes_ is not None and self._breaks(bytes_, len(data), now, since):
            scanner.stop_at(mark, bytes_.exceeded())
            return b""
        return passing

    @property
    def is_forgiving(self) -> bool:
        """Whether what is read now may have been sent while nothing was read."""
        return self._paused_at is not None or self._forgives(self._time.seconds())

    def _forgives(self, now: float) -> bool:
        if self._forgiving is not None and now >= self._forgiving[1]:
            self._forgiving = None
        return self._forgiving is not None

    def pause(self) -> None:
        """Nothing is read for now."""
        if self._paused_at is None:
            self._paused_at = self._time.seconds()

    def resume(self) -> None:
        """It is read on."""
        if self._paused_at is not None:
            now = self._time.seconds()
            self._forgiving = self._paused_at, now + (now - self._paused_at)
            self._paused_at = None

    def _breaks(self, bucket: TokenBucket, units: int, now: float, since: float) -> bool:
        over = bucket.take(units, now, since)
        if over:
            bucket.count(over)
        return over > 0 and bucket.limit.enforced


class IdleWatch:
    """Notices that a client sends nothing for a time. Runs from its creation until it is cancelled or has called.

    :param timeout: seconds.
    :param sent: how many bytes the client has sent; ``None``: it could not, as nothing was read.
    :param idle: called once, at most a quarter of ``timeout`` late.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        sent: Callable[[], int | None],
        idle: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._interval = timeout / IDLE_LOOKS
        self._sent = sent
        self._idle = idle
        self._last = sent()
        self._silent = 0
        self._call = clock.callLater(self._interval, self._look)

    def cancel(self) -> None:
        """Stop watching."""
        if self._call.active():
            self._call.cancel()

    def _look(self) -> None:
        # Looks are counted, not seconds: a wall clock that is set forward must not end anybody's session. And one more
        # than the time has: after a pause of this program, its clock comes before what has arrived meanwhile.
        before, self._last = self._last, self._sent()
        is_silent = self._last is not None and self._last == before
        self._silent = self._silent + 1 if is_silent else 0
        if self._silent > IDLE_LOOKS:
            self._idle()
        else:
            self._call = self._clock.callLater(self._interval, self._look)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What clients may send while they relay: what is ``None`` is off.

    :param frames: of ``[limits.frames_per_second]``; so is ``bytes`` of ``[limits.bytes_per_second]``.
    :param idle: seconds in which a client must send something.
    :param idle_enforced: whether it is ended else, or only counted.
    """

    time: SteadyTime | None = None
    frames: Limit | None = None
    bytes: Limit | None = None
    idle: float | None = None
    idle_enforced: bool = True
    counts: LimitCounts = field(default_factory=LimitCounts)

    @classmethod
    def of(cls, section: LimitsConfig, clock: IReactorTime, counts: LimitCounts) -> RelayLimits:
        """Those of a configuration."""
        idle = section.idle_seconds
        return cls(
            SteadyTime(clock),
            _limit(section.frames_per_second),
            _limit(section.bytes_per_second),
            None if idle.mode == "off" else idle.rate,
            idle.mode == "enforce",
            counts,
        )

    def meter(self, scanner: FrameScanner) -> Meter | None:
        """What watches the stream of one client; ``None`` when there is nothing to watch for."""
        if self.time is None or (self.frames is None and self.bytes is None):
            return None
        frames = self._bucket("frames_per_second", "frames", self.frames, self.time)
        bytes_ = self._bucket("bytes_per_second", "bytes", self.bytes, self.time)
        return Meter(scanner, self.time, frames, bytes_)

    def _bucket(
        self, name: str, unit: str, limit: Limit | None, time: SteadyTime
    ) -> TokenBucket | None:
        return None if limit is None else TokenBucket(name, unit, limit, time, self.counts)


NO_LIMITS: Final = RelayLimits()


def _limit(section: LimitConfig) -> Limit | None:
    if section.mode == "off":
        return None
    return Limit(section.needed_rate, section.allowed_burst, section.mode == "enforce")
