"""Logging where others can cause a line whenever they like: a flood of them must not become a flood of lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

PAUSE: Final = 1.0
"""Seconds between two lines of one kind."""


@dataclass(slots=True)
class _Kind:
    """The lines of one kind since the last that was logged.

    :ivar quiet_until: when the next may be logged.
    :ivar kept: the latest of those that were not.
    """

    quiet_until: float
    left_out: int = 0
    kept: tuple[LogLevel, str, dict[str, object]] = (LogLevel.info, "", {})
    later: IDelayedCall | None = field(default=None, repr=False)


class SparingLog:
    """Logs of each kind at most one line in :data:`PAUSE` seconds.

    The first of a kind is logged at once. Of those that come before the pause is over the latest is logged at its end,
    and says how many were left out (``left_out``): so nothing goes by unseen, and the log grows with time alone.

    :param log: where the lines go.
    """

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def emit(self, kind: str, level: LogLevel, format: str, /, **values: object) -> None:
        """Log a line, now or later, or count it.

        :param kind: a word of the program's, never of somebody else's: what is known of each is kept.
        :param format: and ``values``: as of :meth:`twisted.logger.Logger.emit`.
        """
        now = self._clock.seconds()
        found = self._kinds.get(kind)
        # A clock that was set back must not keep a kind quiet for long.
        if found is None or (found.later is None and not 0 < found.quiet_until - now < 2 * PAUSE):
            self._kinds[kind] = _Kind(now + PAUSE)
            self._log.emit(level, format, **values)
            return
        found.left_out += 1
        found.kept = level, format, values
        if found.later is None:
            found.later = self._clock.callLater(found.quiet_until - now, self._tell, found)

    def flush(self) -> None:
        """Log what is kept back: nothing comes after it."""
        for kind in self._kinds.values():
            if kind.later is not None:
                kind.later.cancel()
                self._tell(kind)

    def _tell(self, kind: _Kind) -> None:
        level, format, values = kind.kept
        others = kind.left_out - 1
        kind.later, kind.left_out = None, 0
        kind.quiet_until = self._clock.seconds() + PAUSE
        if others:
            format += " ({left_out} more of this kind were left out)"
            values = {**values, "left_out": others}
        self._log.emit(level, format, **values)
