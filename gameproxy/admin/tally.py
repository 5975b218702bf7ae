"""What is read of a running proxy for its metrics, without holding it up.

Nothing is counted twice: sessions and their relays know already, the database does, and the proxy counts the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gameproxy.admin.sharing import Shared
from gameproxy.farm import GameFarm
from gameproxy.farm.counts import FarmCounts, farm_counts
from gameproxy.farm.store import told_by_store
from gameproxy.interfaces import Traffic
from gameproxy.metrics import Metrics, by_relay, traffic_of
from gameproxy.session import Session

SLICE: Final = 200
"""Sessions that are looked at in one go: more would be a pause that players notice."""
FARM_FRESH: Final = 3.0
"""Seconds for which what the database said is good: it is not asked more often, however many want to know."""


@dataclass(frozen=True, slots=True)
class SessionTally:
    """What the sessions of a proxy come to.

    :param alive: how many there are.
    :param ended: how many there were before.
    :param by_place: how many are in each state, for each game; the game is empty while it is not known.
    :param by_relay: how many each kind of relay moves.
    :param traffic: of all, those that are over too.
    """

    alive: int
    ended: int
    by_place: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_relay: Counter[str] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def games(self) -> list[str]:
        """Those of which there are sessions, each once."""
        return list(dict.fromkeys(game for _, game in self.by_place if game))


async def tally(sessions: Sequence[Session], metrics: Metrics, clock: IReactorTime) -> SessionTally:
    """Look at all sessions, some at a time.

    A session that ends meanwhile is counted once, for what it had relayed then: what the ended ones had is taken at the
    beginning, with the list of the others. So no sum is ever smaller than the one before.
    """
    traffic, ended = metrics.traffic, sum(metrics.ended.values())
    by_place: Counter[tuple[str, str]] = Counter()
    relays: Counter[str] = Counter()
    for start in range(0, len(sessions), SLICE):
        if start:
            await deferLater(clock, 0)
        some = sessions[start : start + SLICE]
        by_place.update((one.state, one.game or "") for one in some)
        relays.update(by_relay(some))
        traffic += traffic_of(some)
    return SessionTally(len(sessions), ended, by_place, relays, traffic)


def watch_farm(
    farm: GameFarm, games: Callable[[], tuple[str, ...]], clock: IReactorTime
) -> Shared[FarmCounts | None]:
    """What the database says of the farm, asked seldom; ``None``: it gives no answer.

    :param games: gives those whose numbers are wanted.
    """

    def look() -> Deferred[FarmCounts | None]:
        now, wanted = clock.seconds(), games()
        counts = farm.read(lambda cursor: farm_counts(cursor, wanted, now))
        return counts.addErrback(told_by_store)  # which leaves None

    return Shared(look, FARM_FRESH, clock)
