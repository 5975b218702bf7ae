"""The timeline of a run: what is read from its trace, and the page that shows it."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from test_cli_check import run as gameproxy
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.placement import Placement
from gameproxy.simulation import timeline_reading
from gameproxy.simulation.runs import Run, command, drawn, play
from gameproxy.simulation.timeline import Heading, page, timeline
from gameproxy.simulation.timeline_reading import read

VOID = {"meta", "input", "br"}
MARKUP = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """What is in a page, if it is well-formed: text, and attributes, by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        self.text[where] = self.text.get(where, "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        """What the script is given."""
        packed = self.text["script"].split("\n")[1]
        content: dict[str, Any] = json.loads(zlib.decompress(b64decode(packed)))
        return content


def lines(*texts: str) -> list[str]:
    """A trace with a line each millisecond."""
    return [f"{1000 * number} {text}\n" for number, text in enumerate(texts)]


def forgets_the_queued(test: SynchronousTestCase) -> None:
    """Have the farm forget to give back the places of those who leave while they wait."""
    release = Placement.release

    def forgets(self: Placement, session: str) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.state != "queued":
            release(self, session)

    test.patch(Placement, "release", forgets)


def failing_run() -> Run:
    """A run that fails as long as :func:`forgets_the_queued`."""
    return next(
        run
        for run in (drawn(seed, "churn", clients=20) for seed in range(1000))
        if play(run).failure is not None
    )


class ReadingTests(SynchronousTestCase):
    def test_lanes(self) -> None:
        """There is a lane for the database, each proxy, game server and client of a run."""
        run = drawn(7, "churn", clients=30, proxies=2)
        result = play(run, keep_trace=True)
        picture = read(result.lines)
        names = [(lane.kind, lane.name) for lane in picture.lanes]
        self.assertEqual(names[0], ("database", "database"))
        self.assertEqual([name for kind, name in names if kind == "proxy"], ["proxy0", "proxy1"])
        came = {int(line.split()[2]) for line in result.lines if line.split()[1] == "comes"}
        clients = [int(name) for kind, name in names if kind == "client"]
        self.assertEqual(clients, sorted(came))
        self.assertLessEqual(set(range(30)), came)
        serving = {line.split()[3] for line in result.lines if line.split()[1] == "serves"}
        servers = {name for kind, name in names if kind == "server"}
        self.assertLessEqual(serving, servers)
        self.assertEqual(picture.reasons, result.reasons)
        self.assertEqual(len(picture.faults), len(run.faults))

    def test_all_frames_are_somebodys(self) -> None:
        """Each segment goes from one lane to another, and is known to be of a client's session, on both sides of the
        proxy."""
        picture = read(play(Run(5, "churn", clients=30), keep_trace=True).lines)
        kinds = {number: lane.kind for number, lane in enumerate(picture.lanes)}
        ways = set()
        for line in picture.lines:
            if line.text.startswith("data"):
                ways.add((kinds[line.source], kinds[line.lane]))
                self.assertEqual(kinds[line.client], "client", line)
                self.assertGreater(line.travel, 0)
        there = {("client", "proxy"), ("proxy", "server")}
        self.assertEqual(ways, there | {(target, source) for source, target in there})

    def test_names(self) -> None:
        """No two sockets of a run have the same name, on whatever machines and in however many processes they are."""
        trace = play(Run(1, "full-farm", clients=10), keep_trace=True).lines
        words = [line.split()[2:] for line in trace if line.split()[1] == "connected"]
        names = [name for pair in words for name in pair]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreater(len({name.partition(".")[0] for name in names}), 3)

    def test_client(self) -> None:
        """A client's lane says when it was connecting, waiting and playing, and how it ended."""
        picture = read(
            lines(
                "comes 4",
                "syn clients.1 32769 10.0.0.1 7001",
                "online 4 32769",
                "asks 0a1b2c3d 32769",
                "status 4 starting 1",
                "welcome 4 echo-1 0a1b2c3d",
                "gone 4 ConnectionLost 0",
            )
        )
        lane = picture.lanes[-1]
        self.assertEqual(
            [span[:3] for span in lane.spans],
            [
                (0, 2000, "connecting"),
                (2000, 4000, "authenticating"),
                (4000, 5000, "waiting"),
                (5000, 6000, "playing"),
                (6000, 6000, "gone"),
            ],
        )
        self.assertEqual([step[3] for step in picture.farm], [1, 0])
        self.assertEqual([line.client for line in picture.lines], [1] * 7)

    def test_processes(self) -> None:
        """A process's lane says when it ran, stood still, and how it ended; a proxy that is started again has the same
        lane."""
        picture = read(
            lines(
                "start proxy0",
                "freeze proxy0",
                "thaw proxy0",
                "end proxy0 0 9",
                "start proxy0#2",
                "spawn echo proxy0#2",
                "serves echo echo-1 16",
                "end echo 1 None",
                "freeze proxy0#2",
                "settle",
            )
        )
        server, proxy = picture.lanes[1:]
        self.assertEqual(
            server.spans, [(5000, 6000, "starting", "echo"), (6000, 7000, "up", "echo, exit 1")]
        )
        self.assertEqual(
            sorted(proxy.spans),
            [
                (0, 3000, "up", "proxy0, signal 9"),
                (1000, 2000, "frozen", "proxy0 stands still"),
                (4000, 9000, "up", "proxy0#2"),
                (8000, 9000, "frozen", "proxy0#2 stands still"),
            ],
        )
        self.assertEqual(picture.farm, [(6000, 0, 16, 0), (7000, 0, 0, 0)])

    def test_farm(self) -> None:
        """The farm's slots, and those of each game server, are counted as they are given and come back."""
        picture = read(
            lines(
                "spawn echo proxy0",
                "serves echo echo-1 2",
                "slot a echo-1",
                "slot b echo-1",
                "free a echo-1",
                "slot c gone",
            )
        )
        self.assertEqual([step[1] for step in picture.farm], [0, 1, 2, 1, 2])
        self.assertEqual(picture.lanes[1].steps, [(2000, 1), (3000, 2), (4000, 1)])

    def test_what_goes_wrong(self) -> None:
        """Faults, links that are cut and clogged, and the first thing that did not hold are found."""
        picture = read(
            lines(
                "fault 0 clog",
                "clog a b 700",
                "cut a b",
                "mend a b",
                "clog a b 0",
                "cut b a",
                "settle",
                "violation one thing",
                "failure another",
            )
        )
        self.assertEqual(picture.faults, [(0, "clog")])
        self.assertEqual(
            picture.troubles,
            [(2000, 3000, "cut a → b"), (1000, 4000, "clog a → b"), (5000, 8000, "cut b → a")],
        )
        self.assertEqual(picture.settles, 6000)
        self.assertEqual(picture.failure, (7000, "one thing"))

    def test_other_lines(self) -> None:
        """Lines that a test has written itself, and the rest of lines that are several, do no harm."""
        picture = read(["0 serves\n", "1 serves x y many\n", "2 online 3\n", "more\n", "3 hello\n"])
        self.assertEqual([line.text for line in picture.lines][-1], "hello")

    def test_two_at_once(self) -> None:
        """Whose connection to a game server it is is not guessed: two had data when a player joined."""
        found = [
            "serves echo echo-1 2",
            "welcome 1 echo-1 a",
            "connected proxy0.2 echo.2",
            "connected proxy0.3 echo.3",
        ]
        one = [*lines(*found), "9000 data echo.2 5 1\n", "9000 joined echo-1 a\n"]
        self.assertNotEqual(read(one).lines[-2].client, -1)
        two = [*one[:-1], "9000 data echo.3 5 1\n", one[-1]]
        self.assertEqual([line.client for line in read(two).lines[-3:-1]], [-1, -1])

    def test_long_trace(self) -> None:
        """Of too many lines, the first traffic is left out, and counted."""
        self.patch(timeline_reading, "LINES_MAX", 3)
        picture = read(lines("data a 1 1", "fault 0 x", "data b 2 1", "data c 3 1", "data d 4 1"))
        self.assertEqual([line.text[:6] for line in picture.lines], ["fault ", "data c", "data d"])
        self.assertEqual(picture.left_out, 2)


class PageTests(SynchronousTestCase):
    def test_well_formed(self) -> None:
        """The page is well-formed, and needs nothing from outside."""
        run = drawn(7, "churn", clients=20)
        result = play(run, keep_trace=True)
        found = Page(timeline(run, result.lines, result.sha256, "7.run"))
        self.assertEqual(len(found.named("script")), 2)
        for _, attributes in found.elements:
            self.assertFalse({"src", "href"} & set(attributes), attributes)
        policy = found.named("meta")[2]["content"] or ""
        self.assertTrue(policy.startswith("default-src 'none'"))
        self.assertEqual(found.data["text"].count("\n") + 1, len(result.lines))
        self.assertEqual(sum(found.data["at"]), int(result.lines[-1].split()[0]))
        self.assertIn("gameproxy sim shrink 7.run", found.text["code"])
        self.assertIn("all held", found.text["span"])

    def test_same(self) -> None:
        """The same run has the same page."""
        run = drawn(3, clients=10)
        first, second = (play(run, keep_trace=True) for _ in range(2))
        self.assertEqual(
            timeline(run, first.lines, first.sha256), timeline(run, second.lines, second.sha256)
        )

    def test_escaped(self) -> None:
        """Nothing in a trace or a heading is markup, whatever players, servers and faults are called."""
        trace = lines(
            f"comes {MARKUP}",
            f"start {MARKUP}",
            f"serves {MARKUP} {MARKUP} 3",
            f"fault 0 {MARKUP}",
            f"over a {MARKUP} b",
            f"failure {MARKUP}",
        )
        text = page(Heading(MARKUP, [MARKUP], [(MARKUP, MARKUP)]), trace)
        found = Page(text)
        self.assertEqual(len(found.named("script")), 2)
        self.assertNotIn("alert('", text)
        for where in ("title", "h1", "strong", "button", "code", "span"):
            self.assertIn(MARKUP, found.text[where], where)

    def test_failure(self) -> None:
        """What did not hold stands at the top, with its time and the commands that have the run again and make it
        small."""
        forgets_the_queued(self)
        run = failing_run()
        result = play(run, keep_trace=True)
        assert result.failure is not None
        found = Page(timeline(run, result.lines, result.sha256, "9.run"))
        what = result.failure.partition("\n")[0]
        self.assertEqual(found.text["strong"], what)
        self.assertEqual(found.data["failure"][1], what)
        self.assertIn(f"at {result.virtual:.6f} s", found.text["span"])
        self.assertIn("failed", found.text["span"])
        self.assertIn(f"sim run --seed {run.seed} --scenario churn", found.text["code"])
        self.assertIn(f"--seed {run.seed} --scenario churn --clients 20 --faults 8", result.failure)

    def test_size(self) -> None:
        """100,000 lines of 60 clients make a page of less than 3 MB."""
        once = play(drawn(1, "churn", clients=60), keep_trace=True).lines
        trace: list[str] = []
        while len(trace) < 100_000:
            first = int(trace[-1].split()[0]) if trace else 0
            for line in once:
                at, _, text = line.partition(" ")
                trace.append(f"{first + int(at) + len(trace) % 7} {text}")
        self.assertLess(len(page(Heading("many"), trace)), 3_000_000)

    def test_left_out(self) -> None:
        """A page tells how many lines it does not show."""
        self.patch(timeline_reading, "LINES_MAX", 1)
        found = Page(page(Heading("long"), lines("data a 1 1", "data b 1 1", "data c 1 1")))
        self.assertIn("the first 2 lines of traffic are not shown", found.text["span"])


class CommandTests(SynchronousTestCase):
    def test_again(self) -> None:
        """A run whose faults were drawn is had again by its numbers; another only by its file."""
        self.assertEqual(
            command(drawn(3, "churn", 20, 2, 2)),
            "gameproxy sim run --seed 3 --scenario churn --clients 20 --faults 2 --proxies 2",
        )
        smaller = Run(3, left_out=frozenset({1}))
        self.assertIsNone(command(smaller))
        found = Page(timeline(smaller, [], "", None))
        self.assertNotIn("code", found.text)

    def test_run(self) -> None:
        """``sim run --timeline`` writes the page; the hash is still the last line."""
        path = Path(self.mktemp())
        status, output, _ = gameproxy(
            "sim", "run", "--seed", "2", "--clients", "3", "--timeline", str(path)
        )
        self.assertEqual(status, 0)
        self.assertTrue(output.splitlines()[-1].startswith("trace sha256 "))
        found = Page(path.read_text())
        self.assertIn("--faults 8 --trace 2.run; gameproxy sim shrink 2.run", found.text["code"])

    def test_file(self) -> None:
        """``sim timeline`` makes the page of a run's file, beside it or where it is told; what is no run is refused."""
        path = Path(self.mktemp()).with_suffix(".run")
        gameproxy("sim", "run", "--seed", "2", "--clients", "3", "--trace", str(path))
        self.assertEqual(gameproxy("sim", "timeline", str(path))[0], 0)
        beside = path.with_suffix(".html").read_text()
        other = Path(self.mktemp())
        gameproxy("sim", "timeline", str(path), "--output", str(other))
        self.assertEqual(other.read_text(), beside)
        self.assertIn(f"gameproxy sim replay {path.name}", Page(beside).text["code"])
        self.assertEqual(gameproxy("sim", "timeline", str(other))[0], 1)

    def test_failing_run(self) -> None:
        """A run that fails leaves its file and its timeline, and says where."""
        forgets_the_queued(self)
        run = failing_run()
        folder = Path(self.mktemp())
        folder.mkdir()
        with chdir(folder):
            status, output, _ = gameproxy(
                *f"sim run --seed {run.seed} --clients 20 --scenario churn".split()
            )
        self.assertEqual(status, 1)
        names = [f"failure-{run.seed}.html", f"failure-{run.seed}.run"]
        self.assertEqual(sorted(path.name for path in folder.iterdir()), names)
        self.assertIn(f"in {names[1]}, {names[0]}", output)
