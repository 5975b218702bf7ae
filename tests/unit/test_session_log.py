"""gameproxy.session_log: whoever has played has a line, and junk has a line a second"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.interfaces import SessionRecord, Traffic
from gameproxy.json_log import json_line
from gameproxy.reasons import CloseReason
from gameproxy.session_log import SessionLog
from gameproxy.testing import PEER

STANDARD = ("time", "level", "namespace", "message")
ESCAPE = "\x1b[2J\u202e\n"


def record(number: int, reason: CloseReason, played: bool, **more: Any) -> SessionRecord:
    """Of a session of 2.5 seconds."""
    fields: dict[str, Any] = {
        "session": f"s{number}",
        "peer": PEER,
        "reason": reason,
        "message": "",
        "detail": "",
        "player": f"p{number}" if played else None,
        "game": "chess" if played else None,
        "server": "chess-1" if played else None,
        "started_at": 100.0,
        "ended_at": 102.5,
        "traffic": Traffic(1, 20, 3, 40) if played else Traffic(),
        "relayed_at": 100.5 if played else None,
    }
    return SessionRecord(**{**fields, **more})


class SessionLogTests(SynchronousTestCase):
    """What is logged, under a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = SessionLog(self.clock)
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "gameproxy.session_log.SessionLog":
            self.events.append(event)

    def test_flat_keys(self) -> None:
        """The line of an end has all that one looks for under a key of its own."""
        self.log.ended(record(1, CloseReason.LEFT, True))
        (event,) = self.events
        line = json.loads(json_line(event))
        own = {key: value for key, value in line.items() if key not in STANDARD}
        self.assertEqual(
            own,
            {
                "event": "session_end",
                "session": "s1",
                "player": "p1",
                "game": "chess",
                "server": "chess-1",
                "address": PEER.address,
                "reason": "left",
                "detail": "",
                "duration": 2.5,
                "client_frames": 1,
                "client_bytes": 20,
                "server_frames": 3,
                "server_bytes": 40,
            },
        )
        self.assertEqual(
            formatEvent(event),
            f"Session s1 from {PEER.address} ended: left"
            " (player 'p1', game server 'chess-1', 2.500 s)",
        )

    def test_players_are_never_left_out(self) -> None:
        """However many sessions that have played end in one moment, with one reason: each has its line, at once."""
        for number in range(500):
            self.log.ended(record(number, CloseReason.SERVER_LOST, True))
        self.assertEqual([event["session"] for event in self.events], [f"s{n}" for n in range(500)])

    def test_junk(self) -> None:
        """Of those that never played there is a line a second for each reason; players' lines are among them."""
        for number in range(3000):
            self.log.ended(record(number, CloseReason.PROTOCOL_ERROR, False))
            if number % 1000 == 0:
                self.log.ended(record(number, CloseReason.AUTH_TIMEOUT, False))
                self.log.ended(record(number, CloseReason.PROTOCOL_ERROR, True))
            self.clock.advance(0.001)
        self.clock.advance(2.0)
        reasons = [(event["reason"], event["player"]) for event in self.events]
        self.assertEqual(sum(player is not None for _, player in reasons), 3)
        self.assertLessEqual(reasons.count(("protocol_error", None)), 5)
        self.assertLessEqual(reasons.count(("auth_timeout", None)), 4)
        left_out = sum(event.get("left_out", 0) for event in self.events)
        self.assertEqual(len(self.events) + left_out, 3006)

    def test_turned_away(self) -> None:
        """Connections for which there is no room at all have a line a second together."""
        for _ in range(100):
            self.log.turned_away()
        self.log.flush()
        self.assertEqual([event.get("left_out") for event in self.events], [None, 98])

    def test_program_that_raises(self) -> None:
        """A program's function that raises for each of a flood of sessions fills the log no more than they do."""

        def raises(record: SessionRecord) -> None:
            raise ZeroDivisionError

        for number in range(100):
            self.log.tell(raises, record(number, CloseReason.AUTH_TIMEOUT, False))
        self.log.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_from_outside(self) -> None:
        """Nothing that came from outside reaches the log as it is."""
        hostile = record(1, CloseReason.LEFT, True, player=ESCAPE, detail=ESCAPE, server=ESCAPE)
        self.log.ended(hostile)
        (event,) = self.events
        text = formatEvent(event)
        self.assertTrue(text.isprintable(), text)
        self.assertTrue(json_line(event).isascii() and json_line(event).isprintable())
