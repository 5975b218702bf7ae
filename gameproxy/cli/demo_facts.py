"""What ``gameproxy demo`` knows at a moment, and remembers of the last minute; how it is shown is another matter."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from gameproxy.interfaces import Traffic

MINUTE: Final = 60
"""Samples that are kept, one for each second."""
EVENTS_KEPT: Final = 60
_WORDS: Final = {
    "starting": "is being started",
    "ready": "is ready",
    "draining": "takes no more players",
    "lost": "gives no sign of life",
}


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A game server: its row in the farm, as far as it is shown.

    :param port: where it listens on this machine; ``None`` while it does not. So is ``pid`` before it has one.
    :param connections: sessions that relay; ``reserved``: those that are about to.
    :param added: sessions that it has had since it started, with those of now.
    :param age: seconds since it was started.
    """

    id: str
    game: str
    state: str
    capacity: int
    connections: int = 0
    reserved: int = 0
    added: int = 0
    age: float = 0.0
    port: int | None = None
    pid: int | None = None

    @property
    def taken(self) -> int:
        """Places that are not free."""
        return self.connections + self.reserved


def rows_of(farm: Sequence[Mapping[str, object]], now: float) -> list[ServerRow]:
    """The farm's rows, in an order in which none changes its place: by game, and the newest last.

    :param now: seconds since the epoch.
    """
    rows = [_row_of(row, now) for row in farm]
    return sorted(rows, key=lambda row: (row.game, -row.age, row.id))


def _row_of(row: Mapping[str, object], now: float) -> ServerRow:
    port, pid = row["port"], row["pid"]
    return ServerRow(
        id=str(row["id"]),
        game=str(row["game"]),
        state=str(row["state"]),
        capacity=int(str(row["capacity"])),
        connections=int(str(row["connections"])),
        reserved=int(str(row["reserved"])),
        added=int(str(row["connections_added"])),
        age=now - float(str(row["started_at"])),
        port=None if port is None else int(str(port)),
        pid=None if pid is None else int(str(pid)),
    )


@dataclass(frozen=True, slots=True)
class SetUp:
    """Seconds from connecting to WELCOME, waiting for a game server's start included, of the last bots to come in.

    :param most: so long it took at most for 99 of 100.
    :param count: how many bots these are.
    """

    median: float
    most: float
    count: int


def set_up_of(times: Collection[float]) -> SetUp | None:
    """What there is to say of such times; ``None`` of none."""
    if not times:
        return None
    ordered = sorted(times)
    return SetUp(median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1], len(ordered))


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Seconds from a frame to its echo, by an echo game server: medians of pairs measured in turn.

    :param direct: without the proxy; ``proxied``: through it.
    :param count: how many pairs these are.
    """

    direct: float
    proxied: float
    count: int

    @property
    def added(self) -> float:
        """What the proxy costs; measured, so it may be below 0."""
        return self.proxied - self.direct


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, so many seconds after the start."""

    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Minute:
    """The last minute, second by second, the latest last; shorter at the start."""

    frames: Sequence[float] = ()
    """A second, of both directions together; so are the bytes."""
    bytes: Sequence[float] = ()
    sessions: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How it all stands at a moment.

    :param seconds: since the start.
    :param sessions: how many there are in each state.
    :param ended: how many are over, by close reason.
    :param traffic: what all sessions have relayed since the start.
    :param bots: how many of ``bots_most`` are to play now.
    :param events: the latest last.
    :param selected: the id of a game server.
    :param paused: whether it stays as it is though time goes on.
    :param troubles: how many there were.
    :param ending: whether all is being ended.
    """

    seconds: float
    servers: Sequence[ServerRow] = ()
    sessions: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    bots: int = 0
    bots_most: int = 0
    minute: Minute = field(default_factory=Minute)
    set_up: SetUp | None = None
    round_trip: RoundTrip | None = None
    events: Sequence[Event] = ()
    selected: str | None = None
    paused: bool = False
    troubles: int = 0
    ending: bool = False


class History:
    """Remembers the last minute. To be told once a second how it stands."""

    def __init__(self) -> None:
        self._frames: deque[float] = deque(maxlen=MINUTE)
        self._bytes: deque[float] = deque(maxlen=MINUTE)
        self._sessions: deque[float] = deque(maxlen=MINUTE)
        self._last: tuple[float, int, int] = (0.0, 0, 0)

    def add(self, seconds: float, traffic: Traffic, sessions: int) -> None:
        """Remember how it stands.

        :param seconds: since the start, as what was relayed is.
        """
        frames = traffic.client_frames + traffic.server_frames
        size = traffic.client_bytes + traffic.server_bytes
        then, frames_then, size_then = self._last
        elapsed = seconds - then
        if elapsed <= 0:
            return
        self._last = (seconds, frames, size)
        self._frames.append((frames - frames_then) / elapsed)
        self._bytes.append((size - size_then) / elapsed)
        self._sessions.append(sessions)

    @property
    def minute(self) -> Minute:
        """The last minute."""
        return Minute(tuple(self._frames), tuple(self._bytes), tuple(self._sessions))


class Chronicle:
    """Remembers what happened last.

    :ivar events: the latest last.
    """

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._states: dict[str, str] = {}

    def say(self, seconds: float, text: str) -> None:
        """Something happened."""
        self.events.append(Event(seconds, text))

    def look(self, seconds: float, rows: Sequence[ServerRow]) -> None:
        """Note what has become of the game servers since the last look."""
        states = {row.id: row.state for row in rows}
        for id, state in states.items():
            if self._states.get(id) != state:
                self.say(seconds, f"{id} {_WORDS.get(state, state)}")
        for id in self._states:
            if id not in states:
                self.say(seconds, f"{id} has ended")
        self._states = states


def in_words(counts: Mapping[str, int]) -> str:
    """Counts for people: ``8 relaying, 2 selecting``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
