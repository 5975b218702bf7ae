"""gameproxy.relay.meter: what a client may send while it relays. The sessions here are the reference relay's."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import IdleLimitConfig, LimitConfig, LimitsConfig
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameScanner
from gameproxy.interfaces import Outcome
from gameproxy.limit_counts import LimitCounts
from gameproxy.messages import FrameType, Notice
from gameproxy.reasons import CloseReason
from gameproxy.relay import RelayLimits, Terms, TransportRelay
from gameproxy.wire import Side
from tests.fake_transport import BUFFER, FakeTransport
from tests.unit.test_relay_transport import (
    GAME,
    INT32,
    STALL_TIMEOUT,
    MeasuredWire,
    Peers,
    told,
)

LEAVE = INT32.encode(Notice("left", "").encode(FrameType.CLOSE))
FRAMES = LimitConfig(mode="enforce", rate=10.0, burst=20.0)


def dry(limit: LimitConfig) -> LimitConfig:
    """The same, in dry_run."""
    return limit.model_copy(update={"mode": "dry_run"})


@dataclass
class Limited(Peers):
    """A session with limits, between two fake transports."""

    counts: LimitCounts


def limited(section: LimitsConfig, dialect: str = "native") -> Limited:
    """A session that has begun."""
    clock = Clock()
    counts = LimitCounts(section.modes)
    limits = RelayLimits.of(section, clock, counts)
    words = Dialect(dialect, INT32)
    outcomes: list[Outcome] = []
    transports, sides = [], []
    for _ in range(2):
        transport = FakeTransport()
        wire = MeasuredWire(clock, lambda wire: None)
        transport.connect(wire)
        transports.append(transport)
        sides.append(Side(wire, FrameScanner(INT32, words.server_verdicts), b""))
    relay = TransportRelay(*sides, Terms(words, clock, STALL_TIMEOUT, limits), outcomes.append)
    relay.start()
    return Limited(clock, *transports, relay, outcomes, counts)


class FrameTests(SynchronousTestCase):
    """[limits.frames_per_second] and [limits.bytes_per_second]"""

    def test_enforced(self) -> None:
        """A client that sends too much is told so, with the limit; so is the game server, and what was over the limit
        does not reach it."""
        session = limited(LimitsConfig(frames_per_second=FRAMES))
        session.client.deliver(GAME * 20)
        self.assertIsNone(session.reason)
        session.client.deliver(GAME)
        self.assertEqual(session.reason, CloseReason.LIMIT_EXCEEDED)
        session.settle()
        said = told(session.client.taken)
        self.assertEqual(said["code"], "limit_exceeded")
        self.assertEqual(
            said["message"], "More than 10 frames a second came, and 20 at once: send less."
        )
        self.assertEqual(session.server.taken[: 20 * len(GAME)], GAME * 20)
        self.assertEqual(told(session.server.taken[20 * len(GAME) :])["code"], "limit_exceeded")
        self.assertEqual(session.outcomes[0].limit, "frames_per_second")
        self.assertEqual(session.counts.sessions["frames_per_second"], 1)

    def test_bytes(self) -> None:
        """Bytes are counted as they come, of whatever frames."""
        limit = LimitConfig(mode="enforce", rate=100.0, burst=1000.0)
        session = limited(LimitsConfig(bytes_per_second=limit))
        session.client.deliver(INT32.encode(bytes([0x20]) * 996))
        self.assertIsNone(session.reason)
        session.clock.advance(0.5)
        session.client.deliver(INT32.encode(bytes([0x20]) * 46))
        self.assertIsNone(session.reason)
        session.client.deliver(b"\0")
        self.assertEqual(session.reason, CloseReason.LIMIT_EXCEEDED)
        self.assertEqual(session.outcomes[0].limit, "bytes_per_second")

    def test_within_a_frame(self) -> None:
        """When it is too much in the midst of a frame, no CLOSE is mixed into that."""
        limit = LimitConfig(mode="enforce", rate=1.0, burst=8.0)
        session = limited(LimitsConfig(bytes_per_second=limit))
        start = INT32.encode(bytes([0x20]) * 100)[:8]
        session.client.deliver(start)
        session.client.deliver(b"\x20" * 50)
        session.settle()
        self.assertEqual(session.server.taken, start)
        self.assertTrue(session.server.stream_ended)
        self.assertEqual(told(session.client.taken)["code"], "limit_exceeded")

    def test_the_game_server_is_free(self) -> None:
        """What the game server sends is not limited."""
        session = limited(LimitsConfig(frames_per_second=FRAMES))
        session.server.deliver(GAME * 1000)
        self.assertIsNone(session.reason)

    def test_dry_run(self) -> None:
        """In dry_run nobody is ended, all passes, and it is counted what was too much: sessions once, and frames."""
        session = limited(LimitsConfig(frames_per_second=dry(FRAMES)))
        for _ in range(3):
            session.client.deliver(GAME * 25)
        self.assertIsNone(session.reason)
        self.assertEqual(session.server.written, GAME * 75)
        self.assertEqual(session.counts.sessions["frames_per_second"], 1)
        self.assertEqual(session.counts.units["frames_per_second"], 55)

    def test_who_leaves_is_let_go(self) -> None:
        """A client whose last frames and CLOSE come together has left, however many they were."""
        session = limited(LimitsConfig(frames_per_second=FRAMES))
        session.client.deliver(GAME * 30 + LEAVE)
        self.assertEqual(session.reason, CloseReason.LEFT)

    def test_plain(self) -> None:
        """A client that is told nothing in its dialect is ended as well."""
        session = limited(LimitsConfig(frames_per_second=FRAMES), "plain")
        session.client.deliver(GAME * 21)
        self.assertEqual(session.reason, CloseReason.LIMIT_EXCEEDED)
        session.settle()
        self.assertEqual((session.client.taken, session.server.taken), (b"", b""))
        self.assertTrue(session.client.stream_ended)

    def test_a_clock_that_is_set(self) -> None:
        """A clock that is set back by an hour ends nobody."""
        session = limited(LimitsConfig(frames_per_second=FRAMES))
        session.clock.advance(5000)
        session.client.deliver(GAME * 15)
        session.clock.rightNow -= 3600
        for _ in range(100):
            session.clock.advance(0.1)
            session.client.deliver(GAME)
        self.assertIsNone(session.reason)


RATES = st.sampled_from([0.5, 1.0, 7.0, 30.0, 1000.0])
GAPS = st.lists(st.sampled_from([1.0, 1.0, 1.0, 1.5, 10.0]), min_size=1, max_size=60)


class LimitsThatKickHonestPlayersTests(SynchronousTestCase):
    """Limits that kick honest players: who keeps to the rate is never ended."""

    @given(RATES, GAPS, st.lists(st.integers(0, 60), max_size=5), st.integers(0, 30))
    def test_bunched_on_the_way(
        self, rate: float, gaps: list[float], holdups: list[int], longest: int
    ) -> None:
        """Frames that were sent at the rate, and are held up somewhere, again and again, arrive together: as long as no
        more are held up than the burst, the player plays on, and nothing is lost."""
        burst = longest + 2.0
        section = LimitsConfig(
            frames_per_second=LimitConfig(mode="enforce", rate=rate, burst=burst)
        )
        session = limited(section)
        held = 0
        held_until = 0
        for number, gap in enumerate(gaps):
            session.clock.advance(gap / rate)
            held += 1
            if number >= held_until:
                session.client.deliver(GAME * held)
                held = 0
                if (
                    number in holdups
                ):  # all that is sent in the time of so many frames comes at its end
                    held_until = number + 1 + longest
            self.assertIsNone(session.reason)
        session.client.deliver(GAME * held)
        self.assertIsNone(session.reason)
        self.assertEqual(session.server.written, GAME * len(gaps))

    @given(st.integers(1, 70))
    def test_held_up_by_the_game_server(self, eighths: int) -> None:
        """While the game server takes nothing, nothing is read, and what the player sends waits. However long that was,
        it is not held against him."""
        limit = LimitConfig(mode="enforce", rate=8.0, burst=2.0)
        session = limited(LimitsConfig(frames_per_second=limit))
        session.client.deliver(INT32.encode(b"\x20" * (BUFFER + 1)))  # the server is slow now
        self.assertFalse(session.client.reading)
        for _ in range(eighths):
            session.clock.advance(0.125)
            session.client.deliver(GAME)
            if session.server.unsent:
                session.server.take(1)  # it is there
        session.server.take()
        session.client.deliver()
        self.assertIsNone(session.reason)
        for _ in range(eighths + 8):
            session.clock.advance(0.125)
            session.client.deliver(GAME)
        self.assertIsNone(session.reason)

    def test_a_pause_is_no_licence(self) -> None:
        """What may be sent after such a pause is what could have been sent in it, and no more."""
        limit = LimitConfig(mode="enforce", rate=8.0, burst=2.0)
        for frames, reason in ((9, None), (20, CloseReason.LIMIT_EXCEEDED)):
            session = limited(LimitsConfig(frames_per_second=limit))
            session.client.deliver(INT32.encode(b"\x20" * (BUFFER + 1)))
            session.clock.advance(1.0)
            session.server.take()
            session.client.deliver(GAME * frames)
            self.assertEqual(session.reason, reason)

    def test_a_pause_is_forgotten(self) -> None:
        """Long after such a pause no more may come at once than before it."""
        limit = LimitConfig(mode="enforce", rate=8.0, burst=2.0)
        session = limited(LimitsConfig(frames_per_second=limit))
        session.client.deliver(INT32.encode(b"\x20" * (BUFFER + 1)))
        session.clock.advance(1.0)
        session.server.take()
        session.clock.advance(5.0)
        session.client.deliver(GAME * 9)
        self.assertEqual(session.reason, CloseReason.LIMIT_EXCEEDED)

    @given(RATES, st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), max_size=40))
    def test_nobody_gets_more(self, rate: float, reads: list[tuple[float, int]]) -> None:
        """Whatever somebody sends: no more of it passes than the burst, and what the rate lets pass in the time."""
        burst = 12.0
        section = LimitsConfig(
            frames_per_second=LimitConfig(mode="enforce", rate=rate, burst=burst)
        )
        session = limited(section)
        passed = 0
        for gap, frames in reads:
            session.clock.advance(gap)
            session.client.deliver(GAME * frames)
            if session.reason is not None:
                break
            passed += frames
            session.server.take()
        self.assertLessEqual(passed, burst + rate * session.clock.seconds() + 1e-3)

    def test_the_default_burst(self) -> None:
        """Without a burst, what comes in ten seconds at the rate may come at once; one frame always may."""
        self.assertEqual(LimitConfig(mode="enforce", rate=30.0).allowed_burst, 300.0)
        self.assertEqual(LimitConfig(mode="enforce", rate=0.01).allowed_burst, 1.0)


class IdleTests(SynchronousTestCase):
    """[limits.idle_seconds]"""

    def idle(self, mode: str = "enforce") -> Limited:
        """A session in which something must come every 8 seconds."""
        return limited(LimitsConfig(idle_seconds=IdleLimitConfig(mode=mode, rate=8.0)))

    def test_idle(self) -> None:
        """A client that sends nothing for so long is told so, at most a quarter of the time late."""
        session = self.idle()
        session.client.deliver(GAME)
        for _ in range(16):
            session.clock.advance(0.5)
        self.assertIsNone(session.reason)
        for _ in range(4):
            session.clock.advance(0.5)
        self.assertEqual(session.reason, CloseReason.IDLE)
        session.client.take()
        said = told(session.client.taken)
        self.assertEqual(
            (said["code"], said["message"]), ("idle", "Nothing was sent for 8 s. Connect again.")
        )
        self.assertEqual(session.outcomes[0].limit, "")

    def test_who_sends_stays(self) -> None:
        """A client that sends something in each such time is never ended; what the game server sends is of no help."""
        session = self.idle()
        for _ in range(100):
            session.clock.advance(7.9)
            session.client.deliver(GAME)
        self.assertIsNone(session.reason)
        for _ in range(20):
            session.clock.advance(0.5)
            session.server.deliver(GAME)
            session.client.take()
        self.assertEqual(session.reason, CloseReason.IDLE)

    def test_a_pause_of_the_proxy(self) -> None:
        """A proxy that stood still sees its clock before what has come meanwhile: that is held against nobody, nor is a
        clock that is set forward."""
        session = self.idle()
        for _ in range(7):
            session.clock.advance(1.0)
        session.clock.advance(1000.0)
        self.assertIsNone(session.reason)
        session.client.deliver(GAME)
        for _ in range(8):
            session.clock.advance(1.0)
        self.assertIsNone(session.reason)

    def test_held_up_by_the_game_server(self) -> None:
        """While nothing is read, nobody can be heard."""
        limits = LimitsConfig(idle_seconds=IdleLimitConfig(mode="enforce", rate=2.0))
        session = limited(limits)
        session.client.deliver(INT32.encode(b"\x20" * (BUFFER + 1)))
        for _ in range(40):
            session.clock.advance(0.25)
            session.client.deliver(GAME)
            session.server.take(1)
        self.assertIsNone(session.reason)

    def test_dry_run(self) -> None:
        """In dry_run it is counted once, and the session goes on."""
        session = self.idle("dry_run")
        for _ in range(100):
            session.clock.advance(1.0)
        self.assertIsNone(session.reason)
        self.assertEqual(session.counts.numbers()["idle_seconds_dry_run_sessions"], 1)

    def test_nothing_is_left(self) -> None:
        """A session that has ended leaves no call behind."""
        session = self.idle()
        session.client.deliver(LEAVE)
        session.settle()
        self.assertEqual(session.clock.getDelayedCalls(), [])


class OffTests(SynchronousTestCase):
    """Limits that are off"""

    def test_they_cost_nothing(self) -> None:
        """What scans is the scanner itself, and nothing is called later."""
        clock = Clock()
        limits = RelayLimits.of(LimitsConfig(), clock, LimitCounts())
        self.assertIsNone(limits.meter(FrameScanner(FORMATS["int32"], None)))
        session = limited(LimitsConfig())
        self.assertEqual(session.clock.getDelayedCalls(), [])
        self.assertEqual(session.counts.numbers(), {})
