"""A rate for each of many keys, in a table that does not grow (docs/security, "What limits stop").

The rate is kept by the generic cell rate algorithm (ITU-T I.371, annex A): of each key it is known until when what was
let in takes at that rate, and no more. A key that owes nothing, as that time is over, need not be kept.

When the table is full of keys that owe, a new one takes the place of the one that owes least, *and its debt* (as the
counters of Space-Saving do; Metwally, Agrawal, El Abbadi 2005). So whoever was pushed out finds no less than his own
debt when he comes again, as the least debt in a full table never shrinks but by time. However many keys somebody has,
none gets more than its rate and burst; all that he can do by filling the table is to make newcomers owe what the least
debtor owes. That one is never more than a burst ahead: nobody waits longer than until one more is free.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Final

from gameproxy.steady_time import SteadyTime

TABLE_SIZE: Final = 16_384
"""Most keys that owe at once, and are told apart."""
_TIDIED: Final = 2
"""Entries that are looked at for each that comes: so the table empties as fast as it filled."""
_ROUNDING: Final = 1e-6
"""Seconds that sums of seconds may be off."""


class Throttle:
    """Lets each key have so much a second.

    :param rate: how many a second, for ever.
    :param burst: how many at once, 1 or more.
    :param size: most keys that are kept.
    """

    def __init__(self, time: SteadyTime, rate: float, burst: float, size: int = TABLE_SIZE) -> None:
        self._time = time
        self._cost = 1 / rate
        self._most = burst / rate
        self._size = size
        self._busy_until: dict[str, float] = {}
        # Each key once, with what its time was when it was last looked at here: at most what it is now.
        self._least: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._busy_until)

    def wait(self, key: str) -> float:
        """Ask for one.

        :return: 0.0, and it is counted; or the seconds until there may be one more, and nothing is.
        """
        now = self._time.seconds()
        self._tidy(now)
        known = key in self._busy_until
        is_full = not known and len(self._busy_until) >= self._size
        before = self._least_debt() if is_full else self._busy_until.get(key, now)
        until = max(before, now) + self._cost
        wait = until - now - self._most
        if wait > _ROUNDING:
            return wait
        if is_full:
            del self._busy_until[heapreplace(self._least, (until, key))[1]]
        elif not known:
            heappush(self._least, (until, key))
        self._busy_until[key] = until
        return 0.0

    def _least_debt(self) -> float:
        """Until when the one is busy that owes least; it is the first of the heap then."""
        while self._refresh():
            pass
        return self._least[0][0]

    def _tidy(self, now: float) -> None:
        for _ in range(_TIDIED):
            if not self._least or self._least[0][0] > now:
                return
            if not self._refresh():
                del self._busy_until[heappop(self._least)[1]]

    def _refresh(self) -> bool:
        """Put the first of the heap where it belongs now; whether that was to be done."""
        seen, key = self._least[0]
        until = self._busy_until[key]
        if until > seen:
            heapreplace(self._least, (until, key))
            return True
        return False
