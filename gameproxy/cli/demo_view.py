"""What ``gameproxy demo`` shows: a table that lives in a terminal, or a line at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gameproxy.interfaces import Traffic

SERVERS_SHOWN: Final = 8
"""Rows of the table at most: all fits in 24 lines."""
_STYLES: Final = {"ready": "green", "starting": "yellow", "draining": "cyan", "lost": "red"}
_UNITS: Final = ("B", "kB", "MB", "GB")


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A game server: its row in the farm, as far as it is shown.

    :param added: sessions that it has had since it started, with those of now.
    """

    id: str
    state: str
    capacity: int
    connections: int
    reserved: int
    added: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How it all stands at a moment.

    :param seconds: since the start.
    :param sessions: how many there are in each state.
    :param ended: how many are over, by close reason.
    :param traffic: what all sessions have relayed since the start.
    """

    seconds: float
    servers: Sequence[ServerRow]
    sessions: Mapping[str, int]
    ended: Mapping[str, int]
    traffic: Traffic


class View(Protocol):
    """Shows snapshots.

    :ivar interval: seconds between two of them.
    """

    interval: float

    def show(self, snapshot: Snapshot) -> None:
        """Show how it stands now."""
        ...

    def close(self) -> None:
        """Nothing more is to be shown."""
        ...


def view_for(output: TextIO, program: str, address: str) -> View:
    """What suits an output: a live table when it is a terminal.

    :param program: how this command was called.
    :param address: where the proxy listens.
    """
    join_in = f"{program} connect {address} --guest you"
    console = Console(file=output)
    if console.is_terminal:
        return LiveView(console, address, join_in)
    return LineView(output, address, join_in)


class LineView:
    """One plain line for each snapshot."""

    interval = 1.0

    def __init__(self, output: TextIO, address: str, join_in: str) -> None:
        self._output = output
        self._rates = Rates()
        self._print(f"Listening on {address}. To join in: {join_in}")

    def show(self, snapshot: Snapshot) -> None:
        frames, size = self._rates.since_last(snapshot)
        servers = in_words(_server_states(snapshot)) or "none"
        sessions = in_words(snapshot.sessions)
        total = sum(snapshot.sessions.values())
        over = in_words(snapshot.ended) or "none"
        self._print(
            f"{snapshot.seconds:4.0f} s  servers: {servers}  sessions: {total}"
            + (f" ({sessions})" if sessions else "")
            + f"  {frames:.0f} frames/s {as_size(size)}/s  over: {over}"
        )

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, line: str) -> None:
        print(line, file=self._output, flush=True)


class LiveView:
    """A table that is drawn anew for each snapshot."""

    interval = 0.5

    def __init__(self, console: Console, address: str, join_in: str) -> None:
        self._address = address
        self._join_in = join_in
        self._rates = Rates()
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        rates = self._rates.since_last(snapshot)
        page = as_page(snapshot, rates, self._address, self._join_in)
        self._live.update(page, refresh=True)

    def close(self) -> None:
        self._live.stop()


class Rates:
    """Frames and bytes a second from one snapshot to the next."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] = (0.0, 0, 0)

    def since_last(self, snapshot: Snapshot) -> tuple[float, float]:
        """Frames and bytes a second, of both directions together, since the last call."""
        traffic = snapshot.traffic
        frames = traffic.client_frames + traffic.server_frames
        size = traffic.client_bytes + traffic.server_bytes
        then, frames_then, size_then = self._last
        self._last = (snapshot.seconds, frames, size)
        elapsed = snapshot.seconds - then
        if elapsed <= 0:
            return 0.0, 0.0
        return (frames - frames_then) / elapsed, (size - size_then) / elapsed


def as_page(
    snapshot: Snapshot, rates: tuple[float, float], address: str, join_in: str
) -> RenderableType:
    """A snapshot as a page of 80 columns and less than 24 lines.

    :param rates: frames and bytes a second.
    :param join_in: what a person types to play too.
    """
    minutes, seconds = divmod(int(snapshot.seconds), 60)
    frames, size = rates
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    total = sum(snapshot.sessions.values())
    facts.add_row("sessions", f"{total}  {in_words(snapshot.sessions)}")
    facts.add_row("over", in_words(snapshot.ended) or "none yet")
    facts.add_row("traffic", f"{frames:.0f} frames/s  {as_size(size)}/s  (both ways)")
    facts.add_row("join in", Text(join_in, style="bold"))
    return Group(
        Text.assemble(
            ("gameproxy demo", "bold"), f"   {address}   {minutes}:{seconds:02}   Ctrl-C ends it"
        ),
        "",
        _server_table(snapshot.servers),
        "",
        facts,
        "",
    )


def _server_table(servers: Sequence[ServerRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("game server", "state", "sessions", ""):
        table.add_column(name, no_wrap=True)
    table.add_column("so far", justify="right")
    for server in servers[:SERVERS_SHOWN]:
        taken = server.connections + server.reserved
        table.add_row(
            Text(server.id),
            Text(server.state, style=_STYLES.get(server.state, "")),
            Bar(max(server.capacity, 1), 0, taken, width=16, color="green", bgcolor="grey30"),
            f"{taken}/{server.capacity}",
            str(server.added),
        )
    hidden = len(servers) - SERVERS_SHOWN
    if hidden > 0:
        table.add_row(f"and {hidden} more")
    if not servers:
        table.add_row(Text("none yet", style="dim"))
    return table


def in_words(counts: Mapping[str, int]) -> str:
    """Counts for people: ``8 relaying, 2 selecting``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def as_size(size: float) -> str:
    """A number of bytes for people, such as ``5.2 kB``."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def _server_states(snapshot: Snapshot) -> dict[str, int]:
    states: dict[str, int] = {}
    for server in snapshot.servers:
        states[server.state] = states.get(server.state, 0) + 1
    return states
