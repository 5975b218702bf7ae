"""Game servers that are left alone for a while because they could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gameproxy.reasons import CloseReason, Refusal

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Rest:
    pause: float
    until: float
    reason: CloseReason


class Rests:
    """Which servers rest: 1 s after a first failure, twice as long after each further one, 60 s at most."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def failed(self, server: str, reason: CloseReason, now: float) -> None:
        """A dial or a handshake with it failed. What was under way when its rest began does not lengthen it."""
        last = self._rests.get(server)
        if last is not None and now < last.until:
            return
        pause = FIRST_PAUSE if last is None else min(2 * last.pause, LONGEST_PAUSE)
        self._rests[server] = _Rest(pause, now + pause, reason)

    def succeeded(self, server: str) -> None:
        """It let a session in."""
        self._rests.pop(server, None)

    def resting(self, now: float) -> tuple[str, ...]:
        """The servers that rest now."""
        return tuple(server for server, rest in self._rests.items() if now < rest.until)

    def refusal(self, servers: Sequence[str], now: float) -> Refusal:
        """Why there is no game server: the first of ``servers`` to come back, or none at all."""
        rests = [self._rests[s] for s in servers if s in self._rests and now < self._rests[s].until]
        if not rests:
            return Refusal(CloseReason.NO_SERVER)
        first = min(rests, key=lambda rest: rest.until)
        return Refusal(first.reason, retry_after=first.until - now)
