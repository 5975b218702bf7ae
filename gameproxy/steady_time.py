"""Time that never goes back, from a clock that may be set."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class SteadyTime:
    """How much time has passed: when the clock is set back, none."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._last = clock.seconds()
        self._passed = 0.0

    def seconds(self) -> float:
        """Seconds since the beginning, never fewer than the last time."""
        now = self._clock.seconds()
        if now > self._last:
            self._passed += now - self._last
        self._last = now
        return self._passed
