"""gameproxy.json_log: the log as JSON lines"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.json_log import KEYS_MAX, TEXT_MAX, JsonLog, json_line
from gameproxy.reasons import CloseReason


def event(**values: Any) -> dict[str, Any]:
    """An event as a Logger makes it."""
    events: list[dict[str, Any]] = []
    Logger("here", observer=events.append).emit(LogLevel.info, "{name} said", **values)  # type: ignore[arg-type]
    (found,) = events
    return {**found, "log_time": 1_700_000_000.25}


class JsonLineTests(SynchronousTestCase):
    """One event."""

    def line(self, **values: Any) -> dict[str, Any]:
        text = json_line(event(**values))
        self.assertTrue(text.isascii() and text.isprintable(), text)
        found: dict[str, Any] = json.loads(text)
        return found

    def test_keys(self) -> None:
        """It has time, level, place and text, and its own plain values beside them; no other objects."""
        self.assertEqual(
            self.line(name="ann", n=1, x=0.5, yes=True, none=None, it=CloseReason.LEFT, o=object()),
            {
                "time": "2023-11-14T22:13:20.250+00:00",
                "level": "info",
                "namespace": "here",
                "message": "ann said",
                "name": "ann",
                "n": 1,
                "x": 0.5,
                "yes": True,
                "none": None,
                "it": "left",
            },
        )

    def test_from_outside(self) -> None:
        """Controls, line ends, bidi and surrogates are escaped; so no value can be a line of its own."""
        hostile = '\x1b[2J\u202e\r\n{"level":"critical"}\ud800\x7f'
        line = self.line(name=hostile)
        self.assertEqual(line["name"], hostile)
        self.assertTrue(line["message"].isprintable(), line["message"])

    def test_bounds(self) -> None:
        """A text is cut, and so are the keys of an event."""
        self.assertEqual(len(self.line(name="x" * 100_000)["name"]), TEXT_MAX)
        many = {f"k{number}": number for number in range(1000)}
        self.assertLess(len(self.line(name="", **many)), KEYS_MAX + 5)

    def test_no_numbers(self) -> None:
        """What is no number in JSON is null."""
        line = self.line(name="", a=float("nan"), b=float("inf"))
        self.assertEqual((line["a"], line["b"]), (None, None))

    def test_failure(self) -> None:
        """A failure is its traceback, which does not go on for ever."""
        try:
            raise ZeroDivisionError("x" * 100_000)
        except ZeroDivisionError:
            line = self.line(name="", log_failure=Failure())
        self.assertEqual(len(line["failure"]), TEXT_MAX)

    def test_own_keys(self) -> None:
        """An event cannot pretend to be another."""
        line = self.line(name="a", namespace="twisted", time=1, message="bye", failure="")
        self.assertEqual((line["namespace"], line["message"]), ("here", "a said"))
        self.assertNotIn("failure", line)
        self.assertNotEqual(line["time"], 1)


class JsonLogTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.log = JsonLog(self.path)
        self.addCleanup(self.log.stop)

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.path.read_text().splitlines()]

    def test_file(self) -> None:
        """What is logged while it is on is appended, a line each; others may not read it."""
        self.path.write_text('{"message": "before"}\n')
        Logger().info("not yet")
        self.log.start()
        self.log.start()
        Logger().info("now")
        self.log.stop()
        self.log.stop()
        Logger().info("no more")
        self.log(event(name="late"))
        self.assertEqual(self.messages(), ["before", "now"])

    def test_mode(self) -> None:
        """A file that it makes is not for others: players and addresses are in it."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.log.start()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_standard_output(self) -> None:
        """Without a path it is standard output, past what a program has made of ``sys.stdout``."""
        reading, writing = os.pipe()
        saved = os.dup(1)
        os.dup2(writing, 1)
        try:
            log = JsonLog(None)
            log.start()
            Logger().info("out")
            log.stop()
        finally:
            os.dup2(saved, 1)
            for descriptor in (saved, writing):
                os.close(descriptor)
        with os.fdopen(reading, "rb") as pipe:
            self.assertEqual([json.loads(line)["message"] for line in pipe], ["out"])

    def test_cannot_be_opened(self) -> None:
        """A file that cannot be opened is an error at once, and nothing is on."""
        log = JsonLog(self.path / "no" / "such")
        self.assertRaises(OSError, log.start)
        self.assertNotIn(log, globalLogPublisher._observers)

    def test_full_disk(self) -> None:
        """When it cannot be written the rest of the log says so once; and how many lines are lost when it can again."""
        said: list[str] = []

        def note(event: dict[str, Any]) -> None:
            if event.get("log_namespace") == "gameproxy.json_log.JsonLog":
                said.append(str(event["log_format"]))
                lost.append(event.get("lost"))

        lost: list[object] = []
        self.log.start()
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        write = os.write

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        self.patch(os, "write", full)
        for _ in range(3):
            Logger().info("lost")
        self.patch(os, "write", write)
        Logger().info("kept")
        self.assertEqual(len(said), 2)
        self.assertEqual(lost, [None, 4])  # the line that says so is lost in the file, too
        self.assertEqual(self.messages()[0], "kept")
