"""What a run's timeline shows: lanes, what is in them, and where each line of the trace belongs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Lane:
    """A row of the picture. All times are microseconds since the beginning.

    :param kind: ``database``, ``proxy``, ``server`` or ``client``.
    :param name: what people read; it is from the trace.
    :ivar spans: from, until, what it was, and words about it.
    :ivar steps: of a game server: times, and how many slots were taken from then on.
    :ivar capacity: of a game server.
    """

    kind: str
    name: str
    spans: list[tuple[int, int, str, str]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    capacity: int = 0


@dataclass(slots=True)
class Placed:
    """A line of the trace, with the numbers of lanes; -1: none.

    :param lane: where it happened.
    :param source: from where it came, if it is something that was sent.
    :param travel: microseconds that it was under way.
    :param client: whose session it belongs to.
    :param text: the line, without its time.
    """

    at: int
    lane: int
    source: int
    travel: int
    client: int
    text: str


@dataclass(slots=True)
class Picture:
    """All that a timeline shows.

    :ivar farm: times, and from then on: slots taken, slots of servers that run, clients that wait.
    :ivar faults: time, and what went wrong.
    :ivar troubles: from, until, and what was wrong with a link.
    :ivar failure: when it was seen what did not hold, and what that is.
    :ivar reasons: how often sessions were over for each.
    :ivar left_out: how many lines of traffic are left out, all before the others.
    """

    lanes: list[Lane] = field(default_factory=list)
    lines: list[Placed] = field(default_factory=list)
    farm: list[tuple[int, int, int, int]] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    troubles: list[tuple[int, int, str]] = field(default_factory=list)
    settles: int | None = None
    failure: tuple[int, str] | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    end: int = 0
    left_out: int = 0
