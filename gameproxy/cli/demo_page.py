"""The page that ``gameproxy demo`` shows in a terminal: what matters in a small one, everything in a large one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gameproxy.cli.demo_facts import MINUTE, Event, ServerRow, Snapshot, in_words

WIDE: Final = (150, 36)
"""Columns and lines from which on a terminal is a large one."""
KEYS: Final = "↑↓ select   k kill   d drain   + - 10 bots   p pause   q quit"
NO_KEYS: Final = "Ctrl-C ends it"
_FACT_LINES: Final = 9
_OTHER_LINES: Final = 6
"""Lines of the small page that are neither facts, nor game servers, nor events."""
_LARGE_LINES: Final = 23
"""Lines of the large page beside its charts, at least."""
_LARGE_OTHER_LINES: Final = 9
"""Lines of it that are neither game servers nor events."""
_CHART_HEIGHT_MAX: Final = 8
_ALL_COLUMNS: Final = 180
"""Columns of a terminal from which on there is room for all that is known of a game server."""
_PLACES_WIDTH: Final = 16
_STATES: Final = {"ready": "green", "starting": "yellow", "draining": "cyan", "lost": "bold red"}
_NUMBERS: Final = ("", "so far", "age", "port", "process")
_LEAST_WIDTHS: Final = {" game server": 13, "state": 8, "places": _PLACES_WIDTH, "": 5, "age": 5}
"""Of columns: nothing moves when a game server comes or goes."""
_UNITS: Final = ("B", "kB", "MB", "GB")
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


def as_page(
    snapshot: Snapshot, size: tuple[int, int], address: str, join_in: str, keys: str
) -> RenderableType:
    """A snapshot as a page that fills a terminal.

    :param size: its columns and lines.
    :param address: where the proxy listens.
    :param join_in: what a person types to play too.
    :param keys: what can be pressed.
    """
    width, height = size
    header = _header(snapshot, address)
    footer = Text(f" {keys}", style="reverse", no_wrap=True)
    footer.pad_right(max(width - len(footer), 0))
    if width >= WIDE[0] and height >= WIDE[1]:
        return _large_page(snapshot, size, header, footer, join_in)
    return _small_page(snapshot, height, header, footer, join_in)


def _small_page(
    snapshot: Snapshot, height: int, header: Text, footer: Text, join_in: str
) -> RenderableType:
    room = max(height - _FACT_LINES - _OTHER_LINES, 2)
    servers = shown_servers(snapshot, room - 1)
    event_lines = room - max(len(servers), 1)
    events = snapshot.events[-event_lines:]
    return Group(
        header,
        Text(),
        _server_table(servers, snapshot, large=False),
        Text(),
        _facts(snapshot, join_in),
        Text(),
        *[_event_line(event) for event in events],
        *[Text() for _ in range(event_lines - len(events))],
        footer,
    )


def _large_page(
    snapshot: Snapshot, size: tuple[int, int], header: Text, footer: Text, join_in: str
) -> RenderableType:
    width, height = size
    chart_height = min((height - _LARGE_LINES) // 3, _CHART_HEIGHT_MAX)
    taken = sum(server.taken for server in snapshot.servers)
    places = sum(server.capacity for server in snapshot.servers)
    servers = shown_servers(snapshot, height // 2)
    events = snapshot.events[len(servers) + _LARGE_OTHER_LINES - height :]
    left = Layout(ratio=1)
    left.split_column(
        Layout(
            _panel(
                f"farm: {len(snapshot.servers)} game servers, {taken} of {places} places taken",
                _server_table(servers, snapshot, large=width >= _ALL_COLUMNS),
            ),
            size=max(len(servers), 1) + 4,
        ),
        Layout(_panel("what happened", Group(*[_event_line(event) for event in events]))),
    )
    right = Layout(size=MINUTE + 20)
    right.split_column(
        Layout(
            _panel("sessions", _sessions_in_large(snapshot, chart_height)), size=chart_height + 3
        ),
        Layout(
            _panel("relayed, both ways", _traffic_in_large(snapshot, chart_height)),
            size=2 * chart_height + 3,
        ),
        Layout(_panel("how long it takes", _times_in_large(snapshot)), size=8),
        Layout(_panel("sessions that have ended, by close reason", _ended(snapshot.ended))),
    )
    middle = Layout()
    middle.split_row(left, right)
    page = Layout()
    page.split_column(
        Layout(header, size=1),
        middle,
        Layout(Text.assemble(" join in: ", (join_in, "bold"), no_wrap=True), size=1),
        Layout(footer, size=1),
    )
    return page


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left")


def _header(snapshot: Snapshot, address: str) -> Text:
    troubles = f"  {snapshot.troubles} troubles" if snapshot.troubles else ""
    state = "  ending ..." if snapshot.ending else "  paused" if snapshot.paused else ""
    return Text.assemble(
        (" gameproxy demo", "bold"),
        f"  {address}  {as_time(snapshot.seconds)}  {snapshot.bots} of {snapshot.bots_most} bots",
        (troubles, "bold red"),
        (state, "bold yellow"),
        no_wrap=True,
    )


# Game servers


def shown_servers(snapshot: Snapshot, room: int) -> Sequence[ServerRow]:
    """Those there is room for; the selected one is among them.

    :param room: how many lines there are.
    """
    servers = snapshot.servers
    ids = [server.id for server in servers]
    selected = ids.index(snapshot.selected) if snapshot.selected in ids else 0
    first = max(selected - room + 1, 0)
    return servers[first : first + room]


def _server_table(servers: Sequence[ServerRow], snapshot: Snapshot, large: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    names = [" game server", "state", "places", "", "so far", "age"]
    for name in names + (["game", "port", "process"] if large else []):
        table.add_column(
            name,
            no_wrap=True,
            justify="right" if name in _NUMBERS else "left",
            min_width=_LEAST_WIDTHS.get(name),
        )
    for server in servers:
        is_selected = server.id == snapshot.selected
        cells = [
            Text(f"{'▶' if is_selected else ' '}{server.id}", style="bold" if is_selected else ""),
            Text(server.state, style=_STATES.get(server.state, "")),
            _places(server),
            Text(f"{server.taken}/{server.capacity}"),
            Text(str(server.added)),
            Text(as_time(server.age)),
        ]
        if large:
            cells += [Text(server.game), Text(_or_dash(server.port)), Text(_or_dash(server.pid))]
        table.add_row(*cells)
    if not servers:
        table.add_row(Text(" none yet", style="dim"))
    return table


def _places(server: ServerRow) -> Text:
    """Each place of a game server: taken, about to be, or free."""
    each = max(_PLACES_WIDTH // max(server.capacity, 1), 1)
    free = server.capacity - server.taken
    return Text.assemble(
        ("█" * (each * server.connections), "green"),
        ("▒" * (each * server.reserved), "yellow"),
        ("░" * (each * max(free, 0)), "dim"),
    )


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


# The rest


def _facts(snapshot: Snapshot, join_in: str) -> Table:
    facts = Table.grid(padding=(0, 1))
    facts.add_column(style="dim", no_wrap=True, min_width=10)
    facts.add_column(no_wrap=True)
    minute = snapshot.minute
    rows: list[tuple[str, Text | str]] = [
        (" sessions", _total(snapshot)),
        ("", Text(chart(minute.sessions, 1)[0], style="green")),
        (" relayed", _rates(snapshot)),
        ("", Text(chart(minute.frames, 1)[0], style="cyan")),
        (" set-up", set_up_words(snapshot)),
        (" echo", round_trip_words(snapshot)),
        (" ", Text(added_words(snapshot), style="bold")),
        (" ended", in_words(snapshot.ended) or "none yet"),
        (" join in", Text(join_in, style="bold")),
    ]
    assert len(rows) == _FACT_LINES
    for name, fact in rows:
        facts.add_row(name, Text(fact) if isinstance(fact, str) else fact)
    return facts


def _total(snapshot: Snapshot) -> Text:
    total = sum(snapshot.sessions.values())
    return Text.assemble((f"{total}", "bold green"), f"  {in_words(snapshot.sessions)}")


def _rates(snapshot: Snapshot) -> Text:
    frames, size = rates(snapshot)
    return Text.assemble(
        (f"{frames:.0f} frames/s", "bold cyan"), (f"  {as_size(size)}/s", "bold"), "  both ways"
    )


def rates(snapshot: Snapshot) -> tuple[float, float]:
    """Frames and bytes a second, of both directions together, in the last second."""
    minute = snapshot.minute
    return (minute.frames[-1], minute.bytes[-1]) if minute.frames else (0.0, 0.0)


def set_up_words(snapshot: Snapshot) -> str:
    """How long it takes to be let in."""
    set_up = snapshot.set_up
    if set_up is None:
        return "not measured yet"
    return (
        f"median {as_duration(set_up.median)}, 99 % within {as_duration(set_up.most)}"
        f" (connect to WELCOME, last {set_up.count})"
    )


def round_trip_words(snapshot: Snapshot) -> str:
    """How long a frame takes to come back."""
    trip = snapshot.round_trip
    if trip is None:
        return "not measured yet"
    return (
        f"round trip {as_duration(trip.direct)} directly,"
        f" {as_duration(trip.proxied)} through the proxy"
    )


def added_words(snapshot: Snapshot) -> str:
    """What of it is the proxy's."""
    trip = snapshot.round_trip
    if trip is None:
        return ""
    return f"{as_duration(trip.added)} added (medians of the last {trip.count})"


def _sessions_in_large(snapshot: Snapshot, chart_height: int) -> RenderableType:
    sessions = snapshot.minute.sessions
    most = f"{max(sessions, default=0):.0f}"
    return Group(_total(snapshot), *_chart(sessions, chart_height, "green", most))


def _traffic_in_large(snapshot: Snapshot, chart_height: int) -> RenderableType:
    frames, size = snapshot.minute.frames, snapshot.minute.bytes
    return Group(
        _rates(snapshot),
        *_chart(frames, chart_height, "cyan", f"{max(frames, default=0):.0f} frames/s"),
        *_chart(size, chart_height, "blue", f"{as_size(max(size, default=0))}/s"),
    )


def _chart(values: Sequence[float], height: int, style: str, most: str) -> list[Text]:
    """A chart, with the most of its values beside its first line."""
    return [
        Text.assemble((line.ljust(MINUTE), style), (f" {most}" if not row else "", "dim"))
        for row, line in enumerate(chart(values, height))
    ]


def _times_in_large(snapshot: Snapshot) -> RenderableType:
    return Group(
        Text.assemble(("set-up ", "dim"), set_up_words(snapshot)),
        Text(),
        Text.assemble(("echo   ", "dim"), round_trip_words(snapshot)),
        Text.assemble("       ", (added_words(snapshot), "bold")),
        Text(),
        Text(
            "       of one echo game server, asked in both ways in turn",
            style="dim",
        ),
    )


def _ended(ended: Mapping[str, int]) -> RenderableType:
    if not ended:
        return Text("none yet", style="dim")
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    most = max(ended.values())
    for name, count in sorted(ended.items(), key=lambda item: (-item[1], item[0])):
        bar = "█" * max(round(count / most * 40), 1)
        table.add_row(Text(name), Text(str(count)), Text(bar, style="magenta"))
    return table


def _event_line(event: Event) -> Text:
    return Text.assemble(
        (f" {as_time(event.seconds):>6} ", "dim"), event.text, no_wrap=True, overflow="ellipsis"
    )


# For people


def chart(values: Sequence[float], height: int) -> list[str]:
    """Values as columns, one character each: lines from the top. What is more than nothing is seen."""
    most = max(values, default=0.0)
    steps = [
        max(math.ceil(value / most * height * 8), 1) if value > 0 and most > 0 else 0
        for value in values
    ]
    return [
        "".join(_BLOCKS[min(max(step - row * 8, 0), 8)] for step in steps)
        for row in range(height - 1, -1, -1)
    ]


def as_size(size: float) -> str:
    """A number of bytes for people, such as ``5.2 kB``."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def as_duration(seconds: float) -> str:
    """A short time for people, such as ``0.31 ms`` or ``1.2 s``."""
    if abs(seconds) >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if abs(milliseconds) >= 10 else f"{milliseconds:.2f} ms"


def as_time(seconds: float) -> str:
    """A longer time for people: minutes and seconds, ``1:05``."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02}"
