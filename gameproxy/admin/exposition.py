"""The metrics of a proxy as Prometheus reads them (docs/operating, "Metrics").

Series exist from the start, at 0: what has never happened cannot be told from what is not measured otherwise. No label
has a value from outside: games are those of the configuration, all else is a word of gameproxy's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gameproxy import __version__
from gameproxy.admin.process import ProcessReading
from gameproxy.admin.tally import SessionTally
from gameproxy.auth.authenticator import MECHANISMS, RESULTS
from gameproxy.farm.counts import BAN_KINDS, SERVER_STATES, FarmCounts
from gameproxy.limit_counts import LIMITS, LimitCounts
from gameproxy.metrics import BOUNDS, Durations
from gameproxy.phases import Phase
from gameproxy.proxied import HeaderCounts
from gameproxy.reasons import CloseReason

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SESSION_STATES: Final = (
    "expecting",
    "authenticating",
    "selecting",
    "connecting",
    "relaying",
    "closing",
)
_STATES_WITHOUT_GAME: Final = ("expecting", "authenticating", "closing")
_WAY: Final = (Phase.EXPECTING, Phase.AUTHENTICATING, Phase.SELECTING, Phase.CONNECTING)


@dataclass(frozen=True, slots=True)
class Reading:
    """All numbers of one moment.

    :param ready: whether clients are served.
    :param games: the names of the games of the configuration.
    :param ended: how many sessions ended with each close reason.
    :param phases: how long it took to come through each.
    :param outcomes: how often each mechanism had each result.
    :param headers: what has come to ports of PROXY headers.
    :param early: bytes that are kept of what came early, and how many may be.
    :param limits: of admission, and how many sessions count for that of the unauthenticated.
    :param broken: how often the limits of ``[limits]`` were broken.
    :param process: what all of it takes of the machine.
    :param farm: ``None`` when the database gives no answer.
    """

    ready: bool
    games: tuple[str, ...]
    sessions: SessionTally
    ended: dict[CloseReason, int]
    phases: dict[Phase, Durations]
    outcomes: dict[tuple[str, str], int]
    turned_away: int
    headers: HeaderCounts
    early: tuple[int, int]
    limits: dict[str, int]
    broken: LimitCounts
    process: ProcessReading
    farm: FarmCounts | None


class Exposition(Collector):
    """Writes readings down. It has a registry of its own: what else a program measures is not in it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reading: Reading | None = None
        self._registry.register(self)

    def text(self, reading: Reading) -> bytes:
        """The text of one scrape."""
        self._reading = reading
        try:
            return generate_latest(self._registry)
        finally:
            self._reading = None

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        if self._reading is None:
            return
        yield _labelled(
            GaugeMetricFamily,
            "gameproxy_build_info",
            "1, for the version of gameproxy that runs.",
            ("version",),
            [((__version__,), 1)],
        )
        yield from _of_sessions(self._reading)
        yield from _of_setup(self._reading)
        yield from _of_bounds(self._reading)
        yield from _of_limits(self._reading.broken)
        yield from _of_farm(self._reading)
        yield from _of_process(self._reading.process)


Samples = Iterable[tuple[tuple[str, ...], float]]
_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _labelled(
    family: _Family, name: str, help: str, labels: tuple[str, ...], samples: Samples
) -> Metric:
    metric = family(name, help, labels=labels)
    for values, number in samples:
        metric.add_metric(values, number)
    return metric


def _gauge(name: str, help: str, number: float) -> Metric:
    return GaugeMetricFamily(name, help, value=number)


def _counter(name: str, help: str, number: float) -> Metric:
    return CounterMetricFamily(name, help, value=number)


def _of_sessions(reading: Reading) -> Iterator[Metric]:
    sessions = reading.sessions
    places = [(state, "") for state in _STATES_WITHOUT_GAME]
    places += [(s, game) for s in SESSION_STATES[2:] for game in reading.games]
    found = {**dict.fromkeys(places, 0), **sessions.by_place}
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_sessions",
        "Sessions at this proxy, by state and game. The game is empty while it is not known.",
        ("state", "game"),
        found.items(),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_relaying_sessions",
        "Sessions that relay at this proxy, by what moves their frames.",
        ("relay",),
        (((relay,), number) for relay, number in sessions.by_relay.items()),
    )
    yield _counter(
        "gameproxy_sessions_started",
        "Sessions that began: connections that were taken.",
        sessions.alive + sessions.ended,
    )
    yield _labelled(
        CounterMetricFamily,
        "gameproxy_sessions_ended",
        "Sessions that are over, by close reason.",
        ("reason",),
        (((reason.value,), reading.ended.get(reason, 0)) for reason in CloseReason),
    )
    traffic = sessions.traffic
    yield _labelled(
        CounterMetricFamily,
        "gameproxy_relayed_frames",
        "Frames that were relayed, by who sent them.",
        ("source",),
        [(("client",), traffic.client_frames), (("server",), traffic.server_frames)],
    )
    yield _labelled(
        CounterMetricFamily,
        "gameproxy_relayed_bytes",
        "Bytes of frames that were relayed, by who sent them.",
        ("source",),
        [(("client",), traffic.client_bytes), (("server",), traffic.server_bytes)],
    )


def _of_setup(reading: Reading) -> Iterator[Metric]:
    phases = reading.phases
    whole = HistogramMetricFamily(
        "gameproxy_setup_seconds", "From the connection of a client to its WELCOME."
    )
    _add(whole, (), phases[Phase.SETUP])
    yield whole
    parts = HistogramMetricFamily(
        "gameproxy_setup_phase_seconds",
        "What a session came through on its way, by the state in which it did.",
        labels=("phase",),
    )
    for phase in _WAY:
        _add(parts, (phase.value,), phases[phase])
    yield parts
    queued = HistogramMetricFamily(
        "gameproxy_queue_wait_seconds", "Time in the queue of sessions that got a slot."
    )
    _add(queued, (), phases[Phase.QUEUED])
    yield queued
    yield _labelled(
        CounterMetricFamily,
        "gameproxy_authentications",
        "Attempts to authenticate, by mechanism and result.",
        ("mechanism", "result"),
        (
            ((m, result), reading.outcomes.get((m, result), 0))
            for m in MECHANISMS
            for result in RESULTS
        ),
    )


def _add(metric: HistogramMetricFamily, labels: tuple[str, ...], durations: Durations) -> None:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
    metric.add_metric(labels, buckets, durations.total)


def _of_bounds(reading: Reading) -> Iterator[Metric]:
    limits, (early, early_limit) = reading.limits, reading.early
    yield _gauge("gameproxy_ready", "1 if this proxy serves new clients, else 0.", reading.ready)
    yield _gauge(
        "gameproxy_unauthenticated_sessions",
        "Sessions that have not proved yet who they are.",
        limits["unauthenticated"],
    )
    yield _gauge(
        "gameproxy_max_unauthenticated_sessions",
        "How many of these there may be.",
        limits["max_unauthenticated"],
    )
    yield _gauge(
        "gameproxy_max_sessions", "How many sessions there may be.", limits["max_sessions"]
    )
    yield _counter(
        "gameproxy_connections_turned_away",
        "Connections closed without a word: there was not even room to say that there is none.",
        reading.turned_away,
    )
    yield _labelled(
        CounterMetricFamily,
        "gameproxy_proxied_connections",
        "Connections to ports of PROXY headers, by what became of the header.",
        ("header",),
        (((fate,), number) for fate, number in asdict(reading.headers).items()),
    )
    yield _gauge("gameproxy_early_bytes", "Bytes kept of what clients sent before WELCOME.", early)
    yield _gauge("gameproxy_max_early_bytes", "How many of these there may be.", early_limit)


def _of_limits(broken: LimitCounts) -> Iterator[Metric]:
    places = [(name, broken.modes.get(name, "off")) for name in LIMITS]
    for name, help, numbers in (
        (
            "gameproxy_limit_sessions",
            "Sessions and connections that broke a limit, each once: ended, or in dry_run let go on.",
            broken.sessions,
        ),
        (
            "gameproxy_limit_units",
            "Frames, bytes and connections that were more than a limit lets pass.",
            broken.units,
        ),
    ):
        samples = [((limit, mode), numbers.get(limit, 0)) for limit, mode in places]
        yield _labelled(CounterMetricFamily, name, help, ("limit", "mode"), samples)


def _of_farm(reading: Reading) -> Iterator[Metric]:
    farm = reading.farm
    yield _gauge(
        "gameproxy_farm_up",
        "1 if the farm's database answers this proxy, else 0.",
        farm is not None,
    )
    if farm is None:
        return
    games = farm.games.items()
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_servers",
        "Game servers of the farm, by game and state.",
        ("game", "state"),
        (((g, s), counts.servers.get(s, 0)) for g, counts in games for s in SERVER_STATES),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_slots",
        "Slots on game servers of the farm, by game: connected, reserved, and free to be taken.",
        ("game", "state"),
        (
            ((game, state), number)
            for game, counts in games
            for state, number in (
                ("connected", counts.connected),
                ("reserved", counts.reserved),
                ("free", counts.free),
            )
        ),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_queue_sessions",
        "Sessions that wait for a slot, at all proxies, by game.",
        ("game",),
        (((game,), counts.queue.waiting) for game, counts in games),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_queue_oldest_seconds",
        "For how long the first in the queue has waited, by game.",
        ("game",),
        (((game,), counts.queue.oldest) for game, counts in games),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_failed_starts",
        "Starts of game servers that failed since the last that did not, by game.",
        ("game",),
        (((game,), counts.failed_starts) for game, counts in games),
    )
    yield _labelled(
        GaugeMetricFamily,
        "gameproxy_farm_bans",
        "Bans that are not over, by kind.",
        ("kind",),
        (((kind,), farm.bans.get(kind, 0)) for kind in BAN_KINDS),
    )
    yield _gauge("gameproxy_farm_proxies", "Proxies that take part in the farm.", farm.proxies)
    yield _counter(
        "gameproxy_farm_sessions_relayed",
        "Sessions that have begun to relay since the farm was made, at all proxies.",
        farm.relayed,
    )


def _of_process(process: ProcessReading) -> Iterator[Metric]:
    yield _counter(
        "process_cpu_seconds", "Processor time of the process, in seconds.", process.processor
    )
    yield _gauge("process_resident_memory_bytes", "Its memory, in bytes.", process.resident)
    yield _gauge("process_virtual_memory_bytes", "Its address space, in bytes.", process.virtual)
    yield _gauge("process_open_fds", "Its file descriptors.", process.descriptors)
    yield _gauge("process_max_fds", "How many of these there may be.", process.max_descriptors)
    yield _gauge(
        "process_start_time_seconds",
        "When it was started, in seconds since the epoch.",
        process.started_at,
    )
