"""gameproxy.cli.demo_facts and gameproxy.cli.demo_page: what is known of a demo, and how a page tells it"""

from __future__ import annotations

import io
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli.demo_facts import (
    EVENTS_KEPT,
    MINUTE,
    Chronicle,
    History,
    RoundTrip,
    ServerRow,
    Snapshot,
    in_words,
    rows_of,
    set_up_of,
)
from gameproxy.cli.demo_page import (
    KEYS,
    WIDE,
    as_duration,
    as_page,
    as_size,
    chart,
    shown_servers,
)
from gameproxy.interfaces import Traffic
from tests.demo_snapshots import ADDRESS, snapshot

SMALL = (80, 24)
LARGE = (200, 50)
JOIN_IN = f"gameproxy play {ADDRESS} --guest you --game arena"


def lines_of(shown: Snapshot, size: tuple[int, int]) -> list[str]:
    """The lines of a page, as a terminal of a size would show them if it scrolled."""
    output = io.StringIO()
    console = Console(file=output, width=size[0], height=size[1], _environ={})
    console.print(as_page(shown, size, ADDRESS, JOIN_IN, KEYS), end="")
    return output.getvalue().splitlines()


def farm_row(id: str, **changes: object) -> dict[str, object]:
    """A row as the farm gives it."""
    return {
        "id": id,
        "game": "arena",
        "state": "ready",
        "capacity": 8,
        "connections": 3,
        "reserved": 1,
        "connections_added": 9,
        "started_at": 100.0,
        "port": 4000,
        "pid": 77,
        **changes,
    }


class FactsTests(SynchronousTestCase):
    """What is known."""

    def test_rows(self) -> None:
        """Rows are in an order that does not change as game servers come: by game, the newest last."""
        farm = [
            farm_row("b", started_at=102.0),
            farm_row("a", started_at=103.0, port=None, pid=None),
            farm_row("e", game="echo", started_at=90.0),
            farm_row("c", started_at=101.0),
        ]
        rows = rows_of(farm, 110.0)
        self.assertEqual([row.id for row in rows], ["c", "b", "a", "e"])
        self.assertEqual(
            rows[1], ServerRow("b", "arena", "ready", 8, 3, 1, 9, age=8.0, port=4000, pid=77)
        )
        self.assertEqual(rows[1].taken, 4)
        self.assertEqual((rows[2].port, rows[2].pid), (None, None))

    def test_set_up(self) -> None:
        """The median, and what 99 of 100 keep within."""
        self.assertIsNone(set_up_of([]))
        one = set_up_of([0.5])
        assert one is not None
        self.assertEqual((one.median, one.most, one.count), (0.5, 0.5, 1))
        many = set_up_of([float(number) for number in range(200, 0, -1)])
        assert many is not None
        self.assertEqual((many.median, many.most, many.count), (100.5, 198.0, 200))

    def test_added(self) -> None:
        """What the proxy adds is the difference."""
        self.assertAlmostEqual(RoundTrip(0.5, 0.75, 3).added, 0.25)

    def test_history(self) -> None:
        """Rates are of both directions, since the last second; only the last minute is kept."""
        history = History()
        history.add(0.0, Traffic(), 0)
        self.assertEqual(history.minute.frames, ())
        history.add(2.0, Traffic(60, 1000, 40, 3000), 7)
        history.add(2.0, Traffic(60, 1000, 40, 3000), 7)
        history.add(2.5, Traffic(70, 2000, 50, 3000), 8)
        minute = history.minute
        self.assertEqual(minute.frames, (50.0, 40.0))
        self.assertEqual(minute.bytes, (2000.0, 2000.0))
        self.assertEqual(minute.sessions, (7, 8))
        for second in range(3, 100):
            history.add(float(second), Traffic(), second)
        self.assertEqual(len(history.minute.frames), MINUTE)
        self.assertEqual(history.minute.sessions[-1], 99)

    def test_chronicle(self) -> None:
        """What becomes of game servers is told once."""
        chronicle = Chronicle()

        def look(seconds: float, **states: str) -> list[str]:
            before = len(chronicle.events)
            chronicle.look(
                seconds, [ServerRow(id, "arena", state, 8) for id, state in states.items()]
            )
            return [event.text for event in list(chronicle.events)[before:]]

        self.assertEqual(look(0, a="starting"), ["a is being started"])
        self.assertEqual(look(1, a="starting"), [])
        self.assertEqual(look(2, a="ready", b="odd"), ["a is ready", "b odd"])
        self.assertEqual(look(3, a="draining"), ["a takes no more players", "b has ended"])
        self.assertEqual(look(4, a="lost"), ["a gives no sign of life"])
        self.assertEqual(chronicle.events[-1].seconds, 4)
        for number in range(EVENTS_KEPT + 5):
            chronicle.say(5.0, f"{number}")
        self.assertEqual(len(chronicle.events), EVENTS_KEPT)

    def test_counts(self) -> None:
        """Counts are in the order of their names."""
        self.assertEqual(in_words({"b": 2, "a": 1}), "1 a, 2 b")


class WordsTests(SynchronousTestCase):
    """Numbers for people."""

    def test_sizes(self) -> None:
        """Sizes have the unit that leaves three digits before the point at most."""
        sizes = [0, 999, 1000, 5321, 2_500_000, 7e9, 7e13]
        expected = ["0 B", "999 B", "1.0 kB", "5.3 kB", "2.5 MB", "7.0 GB", "70000.0 GB"]
        self.assertEqual([as_size(size) for size in sizes], expected)

    def test_durations(self) -> None:
        """Times have three digits or so; one that was measured to be less than nothing is not hidden."""
        times = [0.00031, 0.0099, 0.0123, 0.999, 1.25, 70.0, -0.0002]
        expected = ["0.31 ms", "9.90 ms", "12 ms", "999 ms", "1.2 s", "70.0 s", "-0.20 ms"]
        self.assertEqual([as_duration(time) for time in times], expected)

    def test_chart(self) -> None:
        """The most is as high as the chart, nothing is empty, and little is not nothing."""
        self.assertEqual(chart([0, 1, 4, 8, 0.001], 1), [" ▁▄█▁"])
        self.assertEqual(chart([4, 8], 2), [" █", "██"])
        self.assertEqual(chart([0, 0], 1), ["  "])
        self.assertEqual(chart([], 2), ["", ""])


class PageTests(SynchronousTestCase):
    """What a page tells."""

    def test_small(self) -> None:
        """80 columns and 24 lines: game servers with their places, sessions, rates, times, close reasons, how to join
        in, what happened last, and the keys."""
        lines = lines_of(snapshot(seconds=75.0), SMALL)
        page = "\n".join(lines)
        self.assertIn(f"gameproxy demo  {ADDRESS}  1:15  9 of 10 bots", lines[0])
        # How far apart columns stand differs from release to release of rich.
        self.assertRegex(page, "arena-000000 +ready +████▒▒░{10} +3/8 +7 +1:05")
        for part in (
            "10  8 relaying, 2 selecting",
            "100 frames/s  2.0 kB/s",
            "▁▁▁▁▁▁▁",
            "median 20 ms, 99 % within 1.1 s (connect to WELCOME, last 100)",
            "round trip 0.30 ms directly, 0.50 ms through the proxy",
            "0.20 ms added (medians of the last 60)",
            "3 left",
            JOIN_IN,
        ):
            self.assertIn(part, page)
        self.assertIn("0:39 event 39", lines[-2])
        self.assertIn(KEYS, lines[-1])

    def test_large(self) -> None:
        """200 columns and 50 lines: all that, and charts, all that is known of game servers, and all that happened."""
        lines = lines_of(snapshot(seconds=75.0), LARGE)
        page = "\n".join(lines)
        for part in (
            "farm: 2 game servers, 6 of 16 places taken",
            "arena  40123     4567",
            "arena      -        -",
            "10  8 relaying, 2 selecting",
            "100 frames/s",
            "2.0 kB/s",
            "median 20 ms",
            "0.20 ms added",
            "left  3  ████",
            "0:39 event 39",
            "0:05 event 5",
            f"join in: {JOIN_IN}",
        ):
            self.assertIn(part, page)
        self.assertIn(KEYS, lines[-1])

    def test_large_but_narrow(self) -> None:
        """Where a large page has less room, game servers are told of in fewer words."""
        page = "\n".join(lines_of(snapshot(), WIDE))
        self.assertIn("▒", page)
        self.assertNotIn("…", page.split("what happened")[0])
        self.assertNotIn("4567", page)

    def test_nothing_yet(self) -> None:
        """Before anything happens the pages say so."""
        for size, count in ((SMALL, 4), (LARGE, 4)):
            page = "\n".join(lines_of(Snapshot(0.0), size))
            self.assertEqual(page.count("yet"), count, page)
            self.assertIn("0 frames/s", page)

    def test_state_of_the_demo(self) -> None:
        """That there are troubles, and that it is paused or ends, stands in the first line, however long that is."""
        shown = replace(snapshot(seconds=5999.0), bots=120, bots_most=120, troubles=20, paused=True)
        for size in (SMALL, LARGE):
            first = lines_of(shown, size)[0]
            self.assertTrue(first.rstrip().endswith("20 troubles  paused"), first)
            first = lines_of(replace(shown, ending=True), size)[0]
            self.assertTrue(first.rstrip().endswith("20 troubles  ending ..."), first)

    def test_selected(self) -> None:
        """The selected game server is marked."""
        page = lines_of(snapshot(selected="arena-000001"), SMALL)
        self.assertEqual([line[:13] for line in page if "▶" in line], ["▶arena-000001"])

    def test_selected_is_shown(self) -> None:
        """Where there is no room for all game servers, the selected one is among those shown."""
        for number in (0, 3, 4, 29):
            shown = shown_servers(snapshot(servers=30, selected=f"arena-{number:06}"), 4)
            self.assertEqual(len(shown), 4)
            self.assertIn(f"arena-{number:06}", [server.id for server in shown])
        shown = shown_servers(snapshot(servers=30, selected="gone"), 4)
        self.assertEqual(shown[0].id, "arena-000000")

    def test_odd_capacity(self) -> None:
        """A game server with no places, or with more than can be drawn, or overfull, is shown all the same."""
        rows = [ServerRow("a", "arena", "ready", 0), ServerRow("b", "arena", "ready", 40, 39, 5)]
        page = "\n".join(lines_of(Snapshot(1.0, rows), SMALL))
        self.assertIn("0/0", page)
        self.assertIn("44/40", page)

    def test_markup(self) -> None:
        """What a server is called is shown as it is."""
        row = ServerRow("[red]x[/red]", "[bold]", "[dim]", 1)
        for size in (SMALL, LARGE):
            page = "\n".join(lines_of(Snapshot(0.0, [row]), size))
            self.assertIn("[red]x[/red]", page)
            self.assertIn("[dim]", page)
        self.assertIn("[bold]", page)

    @given(
        width=st.integers(80, 260),
        height=st.integers(24, 80),
        servers=st.integers(0, 30),
        reasons=st.integers(0, 25),
    )
    def test_fits(self, width: int, height: int, servers: int, reasons: int) -> None:
        """However large the terminal, and however much there is to tell: the page has just so many lines, none is
        longer, and the keys are in the last."""
        shown = replace(
            snapshot(servers=servers), ended={f"reason_{number}": 9 for number in range(reasons)}
        )
        lines = lines_of(shown, (width, height))
        self.assertEqual(len(lines), height)
        self.assertLessEqual(max(len(line) for line in lines), width)
        self.assertIn(KEYS, lines[-1])
