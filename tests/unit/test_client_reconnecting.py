"""gameproxy.client.keep_playing"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.client import (
    Backoff,
    Client,
    Guest,
    ProtocolError,
    Refused,
    Session,
    SessionEnded,
    keep_playing,
)
from gameproxy.client.reconnecting import LONGEST_HEEDED, WORTH_AGAIN
from gameproxy.framing import FORMATS
from gameproxy.messages import FrameType, Notice, Welcome, encode_error
from gameproxy.reasons import CloseReason
from gameproxy.testing import seeded_entropy
from tests.fake_loop import FakeLoop

INT32 = FORMATS["int32"]
WELCOME = Welcome("5e55", "guest:ana", "echo-1", "echo").encode()
BACKOFF = Backoff(first=1.0, factor=2.0, longest=8.0, settled=10.0)


async def watch(session: Session) -> str:
    """Play until it is over."""
    async for _ in session:
        pass
    return "over"


class KeepPlayingTests(SynchronousTestCase):
    """Connecting again, and not."""

    def setUp(self) -> None:
        self.loop = FakeLoop()
        self.clock = self.loop.clock
        self.pauses: list[float] = []
        self.reasons: list[Exception] = []

    def start(self, play: Any = watch) -> Deferred[Any]:
        client = Client(self.loop, "h", 1, Guest("ana"))
        self.playing = Deferred.fromCoroutine(
            keep_playing(
                client,
                play,
                entropy=seeded_entropy(),
                backoff=BACKOFF,
                on_pause=self.pause,
            )
        )
        self.addCleanup(self.give_up, self.playing)
        return self.playing

    def give_up(self, playing: Deferred[Any]) -> None:
        playing.cancel()
        playing.addErrback(lambda failure: failure.trap(CancelledError))

    def pause(self, seconds: float, reason: Exception) -> None:
        self.pauses.append(seconds)
        self.reasons.append(reason)

    def say(self, *bodies: bytes) -> None:
        """The proxy sends frames; then it ends the connection if the client does."""
        proxy = self.loop.transports[-1]
        proxy.deliver(b"".join(INT32.encode(body) for body in bodies))
        proxy.take()
        if proxy.stream_ended:
            proxy.end()
            proxy.take()

    def close(self, code: str) -> None:
        self.say(Notice(code, "").encode(FrameType.CLOSE))

    def connections(self) -> int:
        return len(self.loop.addresses)

    def test_plays_once(self) -> None:
        """When play returns, the session is left, and its result is given."""

        async def play(session: Session) -> int:
            return len(await session.receive())

        playing = self.start(play)
        self.say(WELCOME, b"\x10abc")
        self.assertNoResult(playing)
        proxy = self.loop.transports[0]
        self.assertIn(b'"left"', proxy.written)
        proxy.reset()
        self.assertEqual(self.successResultOf(playing), 4)
        self.assertEqual(self.pauses, [])

    def test_nobody_listens(self) -> None:
        """Pauses grow, by chance, up to the longest; there is one before each attempt."""
        self.loop.error = ConnectionRefusedError("No.")
        self.start()
        for attempt in range(10):
            self.assertEqual(self.connections(), attempt + 1)
            most = min(2.0**attempt, 8.0)
            self.assertTrue(most / 2 <= self.pauses[-1] <= most, self.pauses)
            self.clock.advance(self.pauses[-1] - 0.001)
            self.assertEqual(self.connections(), attempt + 1)
            self.clock.advance(0.002)
        self.assertGreater(len(set(self.pauses)), 8)
        self.playing.cancel()
        self.failureResultOf(self.playing, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_plays_on(self) -> None:
        """After a lost connection, or a CLOSE that says to come again, it plays on."""
        playing = self.start()
        for number, code in enumerate(("draining", "server_lost", None)):
            self.assertEqual(self.connections(), number + 1)
            self.say(WELCOME)
            if code is None:
                self.loop.transports[-1].reset()
            else:
                self.close(code)
            self.assertIsInstance(self.reasons[-1], SessionEnded)
            self.clock.advance(self.pauses[-1])
        self.say(WELCOME)
        self.close("left")
        self.assertEqual(self.successResultOf(playing), "over")

    def test_sessions_that_do_not_last(self) -> None:
        """A proxy that lets in and cuts off at once is not connected to without pauses, and these grow; after a
        session that has settled, they begin anew."""
        self.start()
        for _ in range(5):
            self.say(WELCOME)
            self.close("server_lost")
            self.clock.advance(self.pauses[-1])
        self.assertGreaterEqual(self.pauses[-1], 4.0)
        self.say(WELCOME)
        self.clock.advance(BACKOFF.settled)
        self.close("server_lost")
        self.assertLessEqual(self.pauses[-1], 1.0)

    def test_retry_after(self) -> None:
        """A pause is at least as long as the proxy asks for, and an hour at most."""
        self.start()
        for asked, least in ((100.0, 100.0), (0.1, 1.0), (1e300, LONGEST_HEEDED)):
            self.say(encode_error("queue_full", "Later.", asked))
            self.assertEqual(self.reasons[-1].code, "queue_full")  # type: ignore[attr-defined]  # it is Refused
            self.assertGreaterEqual(self.pauses[-1], least)
            self.assertLessEqual(self.pauses[-1], max(least, BACKOFF.longest))
            self.clock.advance(self.pauses[-1])

    def test_codes(self) -> None:
        """Each code either ends it or has it come again: as ERROR and as CLOSE."""
        final = {
            "left",  # in order, that is
            "client_lost",
            "protocol_error",
            "unsupported_version",
            "auth_failed",
            "unknown_game",
            "banned",
            "refused",
            "replaced",
            "idle",
            "kicked",
        }
        self.assertEqual({str(code) for code in CloseReason}, final | {str(c) for c in WORTH_AGAIN})
        for code in (*CloseReason, "a word of the game's own"):
            with self.subTest(code=code):
                self.setUp()
                playing = self.start()
                self.say(encode_error(code, ""))
                if code in WORTH_AGAIN:
                    self.assertNoResult(playing)
                    playing.cancel()
                    self.failureResultOf(playing, CancelledError)
                else:
                    self.assertEqual(self.failureResultOf(playing, Refused).value.code, code)
                self.setUp()
                playing = self.start()
                self.say(WELCOME)
                self.close(code)
                if code in WORTH_AGAIN:
                    self.assertNoResult(playing)
                    playing.cancel()
                    self.failureResultOf(playing, CancelledError)
                elif code in final - {"left"}:
                    end = self.failureResultOf(playing, SessionEnded)
                    self.assertEqual(end.value.ending.code, code)
                else:
                    self.assertEqual(self.successResultOf(playing), "over")

    def test_game_over_while_receiving(self) -> None:
        """The end of the game is no failure for who lets its exception pass."""

        async def play(session: Session) -> bytes:
            return await session.receive()

        playing = self.start(play)
        self.say(WELCOME)
        self.close("checkmate")
        self.assertIsNone(self.successResultOf(playing))

    def test_no_proxy(self) -> None:
        """What is no proxy is not asked again."""
        playing = self.start()
        self.say(b"\x10hello")
        self.failureResultOf(playing, ProtocolError)

    def test_play_fails(self) -> None:
        """What play raises is raised, an OSError of its own too; the connection is ended."""
        for error in (ZeroDivisionError, OSError):
            self.setUp()

            async def play(session: Session, error: type[Exception] = error) -> None:
                raise error

            playing = self.start(play)
            self.say(WELCOME)
            self.failureResultOf(playing, error)
            self.assertEqual(self.loop.transports[0].how, "aborted")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_while_playing(self) -> None:
        """Cancelling ends the connection."""
        playing = self.start()
        self.say(WELCOME)
        playing.cancel()
        self.failureResultOf(playing, CancelledError)
        self.assertEqual(self.loop.transports[0].how, "aborted")

    def test_nobody_is_told(self) -> None:
        """Pauses need not be told to anybody."""
        self.loop.error = OSError("No.")
        client = Client(self.loop, "h", 1, Guest("ana"))
        playing = Deferred.fromCoroutine(keep_playing(client, watch, entropy=seeded_entropy()))
        self.clock.advance(0.5)
        self.assertEqual(self.connections(), 2)
        playing.cancel()
        self.failureResultOf(playing, CancelledError)

    def test_no_pauses(self) -> None:
        """What would be no pauses is refused."""
        for bad in (
            {"first": 0.0},
            {"first": -1.0},
            {"first": 31.0},
            {"factor": 0.9},
            {"longest": float("inf")},
            {"factor": float("nan")},
        ):
            with self.subTest(bad=bad):
                self.assertRaises(ValueError, Backoff, **bad)


@given(
    st.integers(0, 10_000),
    st.binary(min_size=4, max_size=4),
    st.floats(0.001, 10),
    st.floats(1, 100),
    st.floats(10, 1000),
)
def test_pauses(before: int, chance: bytes, first: float, factor: float, longest: float) -> None:
    """No pause is longer than the longest, or shorter than half of the first."""
    pause = Backoff(first, factor, longest).pause(before, lambda size: chance)
    assert first / 2 <= pause <= longest
