"""What the admin site shows: to monitoring, without a token, whether the proxy lives and how much it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from gameproxy.admin.api import Api
from gameproxy.admin.exposition import CONTENT_TYPE, Exposition, Reading
from gameproxy.admin.http import Answer, Asked
from gameproxy.admin.process import ProcessReader, RunInThread
from gameproxy.admin.sharing import Shared
from gameproxy.admin.tally import tally, watch_farm
from gameproxy.admission import Admission
from gameproxy.auth import CredAuthenticator
from gameproxy.client_side import EarlyBytes
from gameproxy.farm import GameFarm
from gameproxy.farm.counts import FarmCounts
from gameproxy.limits import Limits
from gameproxy.metrics import Metrics
from gameproxy.proxied import HeaderCounts

METRICS_FRESH: Final = 1.0
"""Seconds for which a scrape is good for others too, so that no crowd of them costs more than one."""
DATABASE_PATIENCE: Final = 5.0
"""Seconds that the farm's database may take to answer."""


class Watched(Protocol):
    """A proxy, as whoever watches it sees it.

    :ivar hindrance: why it serves no new clients, in a word or two; empty when it does.
    """

    metrics: Metrics
    sessions: Admission
    farm: GameFarm
    authenticator: CredAuthenticator
    limits: Limits
    headers: HeaderCounts
    early_bytes: EarlyBytes
    games: tuple[str, ...]
    hindrance: str


class Pages:
    """Answers requests.

    :param api: for what is asked below ``/v1``.
    :param run_in_thread: for what takes long.
    """

    def __init__(
        self, proxy: Watched, api: Api, clock: IReactorTime, run_in_thread: RunInThread
    ) -> None:
        self._proxy = proxy
        self._api = api
        self._clock = clock
        self._farm = watch_farm(proxy.farm, lambda: proxy.games, clock)
        self._process = ProcessReader(run_in_thread)
        self._exposition = Exposition()
        self._text = Shared(
            lambda: Deferred.fromCoroutine(self._write_metrics()), METRICS_FRESH, clock
        )
        self._pages: dict[str, Callable[[], Deferred[Answer]]] = {
            "metrics": self._metrics,
            "health": lambda: succeed(Answer(200, b"alive\n")),
            "ready": lambda: Deferred.fromCoroutine(self._ready()),
        }

    def answer(self, asked: Asked) -> Deferred[Answer]:
        """Answer a request."""
        path = asked.path or ("",)
        if path[0] == "v1":
            return self._api.answer(asked)
        page = self._pages.get(path[0]) if len(path) == 1 else None
        if page is None:
            return succeed(Answer(404, b"There is /metrics, /health, /ready, and /v1.\n"))
        if asked.method not in ("GET", "HEAD"):
            return succeed(Answer(405, b"This can only be read.\n", headers={"Allow": "GET, HEAD"}))
        return page()

    async def _ready(self) -> Answer:
        proxy = self._proxy
        if not proxy.hindrance and (proxy.farm.in_trouble or await self._look_at_farm() is None):
            return Answer(503, b"the farm's database does not answer\n")
        if proxy.hindrance:
            return Answer(503, f"{proxy.hindrance}\n".encode("ascii"))
        return Answer(200, b"ready\n")

    def _look_at_farm(self) -> Deferred[FarmCounts | None]:
        return self._farm.get().addTimeout(DATABASE_PATIENCE, self._clock, lambda *_: None)

    def _metrics(self) -> Deferred[Answer]:
        return self._text.get().addCallback(lambda text: Answer(200, text, CONTENT_TYPE))

    async def _write_metrics(self) -> bytes:
        proxy = self._proxy
        farm = await self._look_at_farm()
        process = await self._process.read()
        sessions = await tally(list(proxy.sessions), proxy.metrics, self._clock)
        # From here to the end nothing else happens: what is read is of one moment.
        reading = Reading(
            ready=not proxy.hindrance,
            # Sessions may be left of games that are not configured any more.
            games=tuple(dict.fromkeys((*proxy.games, *sessions.games))),
            sessions=sessions,
            ended=dict(proxy.metrics.ended),
            phases=proxy.metrics.phases,
            outcomes=dict(proxy.authenticator.outcomes),
            turned_away=proxy.metrics.turned_away,
            headers=proxy.headers,
            early=(proxy.early_bytes.kept, proxy.early_bytes.limit),
            limits=proxy.sessions.limits(),
            broken=proxy.limits.counts,
            process=process,
            farm=farm,
        )
        return self._exposition.text(reading)
