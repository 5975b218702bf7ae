"""What would be in the log too often, told seldom."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class RareLines:
    """Says when a line of its kind is due: the first at once, then one an interval.

    :param interval: seconds.
    """

    def __init__(self, clock: IReactorTime, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._last: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def due(self, kind: str) -> int | None:
        """Something happened that a line could tell.

        :param kind: one of few: nothing that came from outside.
        :return: how often it has happened since the last such line, untold; ``None``: too early for another.
        """
        now = self._clock.seconds()
        last = self._last.get(kind)
        if last is not None and 0 <= now - last < self._interval:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._unsaid.pop(kind, 0)
