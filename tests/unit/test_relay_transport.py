"""The reference relay: what passes, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameFormat, FrameScanner
from gameproxy.interfaces import Outcome, Traffic
from gameproxy.messages import FrameType, Kick, Notice, encode_settings
from gameproxy.reasons import ADVICE, CloseReason
from gameproxy.relay import Terms, TransportRelay
from gameproxy.wire import LINGER, Side, Wire
from tests.fake_transport import BUFFER, FakeTransport

INT32 = FORMATS["int32"]
STALL_TIMEOUT = 8.0
GAME = INT32.encode(b"\x10move")
CHAT = INT32.encode(b"\x20hello")
BAD = b"\xff\xff\xff\xff"


def close(code: str, message: str = "") -> bytes:
    """CLOSE, as a side sends it."""
    return INT32.encode(Notice(code, message).encode(FrameType.CLOSE))


def told(data: bytes) -> dict[str, str]:
    """The payload of the one CLOSE that ``data`` consists of."""
    assert int.from_bytes(data[:4], "big") == len(data) - 4, data
    assert data[4] == FrameType.CLOSE, data
    fields: dict[str, str] = json.loads(data[5:])
    return fields


class MeasuredWire(Wire):
    """A wire whose system tells what the peer has taken of the fake transport."""

    transport: FakeTransport

    def acknowledged(self) -> int:
        return len(self.transport.taken)


@dataclass
class Peers:
    """A relay between two fake transports.

    :ivar outcomes: what it reported, each time.
    """

    clock: Clock
    client: FakeTransport
    server: FakeTransport
    relay: TransportRelay
    outcomes: list[Outcome]

    @property
    def reason(self) -> CloseReason | None:
        """Why it ended; ``None`` while it has not."""
        (outcome,) = self.outcomes or [None]
        return outcome.reason if outcome else None

    def settle(self) -> None:
        """Let both take what they are sent, and more than the time of ending pass."""
        for _ in range(3):
            self.client.take()
            self.server.take()
            self.clock.advance(LINGER)


def peers(
    dialect: str = "native",
    format: FrameFormat = INT32,
    client_early: bytes = b"",
    server_early: bytes = b"",
    start: bool = True,
) -> Peers:
    """A relay that has begun."""
    clock = Clock()
    words = Dialect(dialect, format)
    outcomes: list[Outcome] = []
    transports = []
    sides = []
    for early in (client_early, server_early):
        transport = FakeTransport()
        wire = MeasuredWire(clock, lambda wire: None)
        transport.connect(wire)
        scanner = FrameScanner(format, words.server_verdicts)
        transports.append(transport)
        sides.append(Side(wire, scanner, scanner.scan(early)))
    relay = TransportRelay(*sides, Terms(words, clock, STALL_TIMEOUT), outcomes.append)
    both = Peers(clock, *transports, relay, outcomes)
    if start:
        relay.start()
    return both


class PassingTests(SynchronousTestCase):
    """While nobody ends it."""

    def test_frames_pass_both_ways(self) -> None:
        """Game frames pass as they come, whole or in parts, and empty ones; the traffic is counted."""
        both = peers()
        both.client.deliver(GAME + GAME[:6])
        both.server.deliver(CHAT + INT32.encode(b""))
        self.assertEqual(both.server.unsent, GAME + GAME[:6])
        self.assertEqual(both.client.unsent, CHAT + INT32.encode(b""))
        both.client.deliver(GAME[6:])
        self.assertEqual(both.server.unsent, GAME + GAME)
        size = len(GAME)
        self.assertEqual(both.relay.traffic, Traffic(2, 2 * size, 2, len(CHAT) + 4))
        self.assertEqual(both.outcomes, [])

    def test_what_came_early_goes_first(self) -> None:
        """What both sides sent before the relay began is passed on when it begins, before all that comes later."""
        both = peers(client_early=GAME + GAME[:7], server_early=CHAT, start=False)
        self.assertEqual((both.client.unsent, both.server.unsent), (b"", b""))
        both.relay.start()
        both.client.deliver(GAME[7:])
        self.assertEqual((both.client.unsent, both.server.unsent), (CHAT, GAME + GAME))

    def test_a_session_may_end_with_what_came_early(self) -> None:
        """CLOSE right behind ADMITTED is passed on, behind what came before it, and nothing of the client's after."""
        both = peers(server_early=CHAT + close("left") + CHAT, client_early=GAME)
        self.assertEqual(both.client.unsent, CHAT + close("left"))
        self.assertEqual(both.server.unsent, GAME)
        self.assertEqual(both.reason, CloseReason.LEFT)
        both = peers(client_early=GAME + BAD, server_early=CHAT)
        self.assertEqual(both.reason, CloseReason.PROTOCOL_ERROR)
        self.assertEqual(told(both.client.unsent)["code"], "protocol_error")

    def test_settings_pass_from_the_game_server_alone(self) -> None:
        """SETTINGS from the game server may come at any time; from a client it is a bad frame."""
        settings_ = INT32.encode(encode_settings(b"fast"))
        both = peers()
        both.server.deliver(CHAT + settings_)
        self.assertEqual(both.client.unsent, CHAT + settings_)
        both.client.deliver(settings_)
        self.assertEqual(both.reason, CloseReason.PROTOCOL_ERROR)

    def test_other_dialects_look_at_no_type(self) -> None:
        """In preamble and plain every frame is the game's, whatever its first byte."""
        frames = close("left") + b"".join(INT32.encode(bytes([first])) for first in range(17))
        for dialect in ("preamble", "plain"):
            both = peers(dialect)
            both.client.deliver(frames)
            both.server.deliver(frames)
            self.assertEqual((both.client.unsent, both.server.unsent), (frames, frames))
            self.assertEqual(both.outcomes, [])

    def test_a_slow_reader_stops_the_other_side(self) -> None:
        """When a side does not read, the other is not read from, until what waits is taken."""
        for slow, fast in (("client", "server"), ("server", "client")):
            both = peers()
            reader: FakeTransport = getattr(both, slow)
            writer: FakeTransport = getattr(both, fast)
            frame = INT32.encode(bytes([0x10]) * 60_000)
            writer.deliver(frame)
            self.assertTrue(writer.reading)
            writer.deliver(frame)
            self.assertFalse(writer.reading)
            writer.deliver(frame)
            self.assertEqual(len(reader.unsent), 2 * len(frame))
            self.assertTrue(reader.reading)
            reader.take(100_000)
            self.assertFalse(writer.reading)
            reader.take()
            writer.deliver()
            self.assertEqual(reader.written, 3 * frame)


class EndTests(SynchronousTestCase):
    """How it ends, and what each side is told."""

    def assert_ended(self, both: Peers, reason: CloseReason) -> None:
        """It ended once, with this reason, and both connections and all timers go when their time has come."""
        self.assertEqual(both.reason, reason)
        both.settle()
        self.assertNotIn(None, (both.client.how, both.server.how))
        self.assertEqual(both.clock.getDelayedCalls(), [])
        self.assertEqual(both.reason, reason)

    def test_the_client_is_lost(self) -> None:
        """The game server gets all that came, then CLOSE; the client nothing more."""
        for how in ("end", "reset"):
            both = peers()
            both.server.deliver(CHAT)
            both.client.deliver(GAME)
            getattr(both.client, how)()
            self.assertEqual(both.server.unsent[: len(GAME)], GAME)
            notice = told(both.server.unsent[len(GAME) :])
            self.assertEqual(notice, {"code": "client_lost", "message": ADVICE[both.reason]})
            self.assertEqual(both.client.unsent, CHAT)
            self.assert_ended(both, CloseReason.CLIENT_LOST)

    def test_the_server_is_lost(self) -> None:
        """The client gets all that came, then CLOSE; the game server nothing more."""
        for how in ("end", "reset"):
            both = peers()
            both.client.deliver(GAME)
            both.server.deliver(CHAT)
            getattr(both.server, how)()
            self.assertEqual(told(both.client.unsent[len(CHAT) :])["code"], "server_lost")
            self.assertEqual(both.server.unsent, GAME)
            self.assert_ended(both, CloseReason.SERVER_LOST)

    def test_an_end_behind_data_waits_its_turn(self) -> None:
        """An end of stream behind a full buffer is noticed when all before it has passed: nothing is lost."""
        both = peers()
        frame = INT32.encode(bytes([0x10]) * BUFFER)
        both.server.deliver(frame)
        both.server.deliver(frame)
        both.server.end()
        for _ in range(2):
            self.assertEqual(both.outcomes, [])
            both.client.take()
            both.server.deliver()
        self.assertEqual(both.client.taken, 2 * frame)
        self.assert_ended(both, CloseReason.SERVER_LOST)

    def test_close_only_between_frames(self) -> None:
        """In the middle of a frame nothing of the proxy's own is said; but what is kept back is no part of a frame."""
        for part, says in ((GAME[:6], False), (GAME[:3], True), (GAME[:4], True)):
            both = peers()
            both.client.deliver(GAME + part)
            both.client.end()
            said = both.server.unsent[len(GAME) :]
            if says:
                self.assertEqual(told(said)["code"], "client_lost")
            else:
                self.assertEqual(said, part)
            self.assert_ended(both, CloseReason.CLIENT_LOST)

    def test_other_dialects_say_nothing(self) -> None:
        """In preamble and plain nothing of the proxy's own is ever said after WELCOME."""
        for dialect in ("preamble", "plain"):
            for end in (
                lambda both: both.client.end(),
                lambda both: both.server.reset(),
                lambda both: both.client.deliver(BAD),
                lambda both: both.relay.close(CloseReason.DRAINING, "Wait."),
            ):
                both = peers(dialect)
                end(both)
                self.assertEqual((both.client.unsent, both.server.unsent), (b"", b""))
                self.assertEqual(len(both.outcomes), 1)

    def test_the_client_leaves(self) -> None:
        """A client's CLOSE is passed on as ``left``, whatever it said; it gets none back."""
        both = peers()
        both.client.deliver(GAME + close("kicked", "Bye.") + GAME)
        self.assertEqual(both.server.unsent[: len(GAME)], GAME)
        notice = told(both.server.unsent[len(GAME) :])
        self.assertEqual(notice, {"code": "left", "message": "Bye."})
        self.assertEqual(both.client.unsent, b"")
        self.assert_ended(both, CloseReason.LEFT)

    def test_the_server_closes(self) -> None:
        """A game server's CLOSE is passed on as it is; its code is the reason if it is one. It gets none back."""
        for code, reason in (("draining", CloseReason.DRAINING), ("won", CloseReason.LEFT)):
            both = peers()
            sent = INT32.encode(b'\x06{ "code":"%s","message":"So.","more":1}' % code.encode())
            both.server.deliver(CHAT + sent + CHAT)
            self.assertEqual(both.client.unsent, CHAT + sent)
            self.assertEqual(both.server.unsent, b"")
            self.assert_ended(both, reason)

    def test_the_server_kicks(self) -> None:
        """KICK tells both ``kicked`` with its message, and asks for the ban."""
        for ban_for in (None, 60.0):
            both = peers()
            both.server.deliver(INT32.encode(Kick("cheating", "Do not.", ban_for).encode()))
            for side in (both.client, both.server):
                self.assertEqual(told(side.unsent), {"code": "kicked", "message": "Do not."})
            self.assertEqual(both.outcomes, [Outcome(CloseReason.KICKED, "Do not.", ban_for)])
            self.assert_ended(both, CloseReason.KICKED)

    def test_bad_frames(self) -> None:
        """Of a bad frame, and of what follows it, nothing passes; both sides are told ``protocol_error``."""
        bad_close, bad_kick = INT32.encode(b"\x06[]"), INT32.encode(b'\x0b{"code":"x"}')
        kick = INT32.encode(Kick("x", "y").encode())
        of_client = [BAD, INT32.encode(b"\x01"), INT32.encode(b"\x04"), bad_close, kick]
        of_server = [BAD, INT32.encode(b"\x02"), INT32.encode(b"\x0a{}"), bad_close, bad_kick]
        for side, bads in (("client", of_client), ("server", of_server)):
            for bad in bads:
                both = peers()
                here: FakeTransport = getattr(both, side)
                there = both.server if side == "client" else both.client
                here.deliver(GAME + bad + GAME)
                here.deliver(GAME)
                self.assertEqual(told(here.unsent)["code"], "protocol_error")
                self.assertEqual(there.unsent[: len(GAME)], GAME)
                self.assertEqual(told(there.unsent[len(GAME) :])["code"], "protocol_error")
                self.assert_ended(both, CloseReason.PROTOCOL_ERROR)

    def test_the_proxy_ends_it(self) -> None:
        """Both sides are told why; only the first reason counts, and nothing passes after it."""
        both = peers()
        both.relay.close(CloseReason.DRAINING, "Connect again.")
        both.relay.close(CloseReason.IDLE, "Late.")
        both.client.deliver(GAME)
        both.server.deliver(CHAT)
        both.client.end()
        for side in (both.client, both.server):
            self.assertEqual(told(side.unsent), {"code": "draining", "message": "Connect again."})
        self.assert_ended(both, CloseReason.DRAINING)

    def test_who_closes_first(self) -> None:
        """A game server that knows that it is over has a second to close first; a client has not, nor has a game
        server that could not be told."""
        endings = [
            (lambda both: both.client.end(), True),
            (lambda both: both.server.deliver(close("left")), True),
            (lambda both: both.server.deliver(close("server_lost")), False),
            (lambda both: both.relay.close(CloseReason.IDLE, ""), True),
            (lambda both: (both.client.deliver(GAME[:6]), both.client.end()), False),
            (lambda both: both.server.end(), False),
        ]
        for end, server_first in endings:
            both = peers()
            end(both)
            both.client.take()
            both.server.take()
            self.assertTrue(both.client.stream_ended)
            self.assertEqual(both.server.stream_ended, not server_first)
            both.clock.advance(LINGER)
            both.server.take()
            self.assertTrue(both.server.stream_ended)


class PatienceTests(SynchronousTestCase):
    """Who is waited for, and how long."""

    def fill(self, reader: FakeTransport, writer: FakeTransport) -> None:
        """Send a reader that does not read more than its buffer holds."""
        while writer.reading:
            writer.deliver(INT32.encode(bytes([0x10]) * 50_000))
        self.assertGreater(len(reader.unsent), BUFFER)

    def test_a_side_that_takes_nothing_is_lost(self) -> None:
        """No progress of a full buffer for the stall timeout loses that side; the other is told."""
        for slow, fast, reason in (
            ("client", "server", CloseReason.CLIENT_LOST),
            ("server", "client", CloseReason.SERVER_LOST),
        ):
            both = peers()
            reader: FakeTransport = getattr(both, slow)
            writer: FakeTransport = getattr(both, fast)
            self.fill(reader, writer)
            both.clock.pump([1.0] * 7)
            self.assertEqual(both.outcomes, [])
            both.clock.advance(1.0)
            self.assertEqual(both.reason, reason)
            self.assertEqual(told(writer.unsent)["code"], reason)
            both.clock.advance(LINGER)
            self.assertEqual(reader.how, "aborted")

    def test_progress_keeps_it(self) -> None:
        """A reader that is slow, and takes a little within every stall timeout, is not lost."""
        both = peers()
        self.fill(both.client, both.server)
        for _ in range(20):
            both.clock.pump([1.0] * 5)
            both.client.take(100)
        self.assertEqual(both.outcomes, [])
        self.assertFalse(both.server.reading)

    def test_an_empty_buffer_cannot_stall(self) -> None:
        """When the buffer has been taken, nothing is waited for any more."""
        both = peers()
        self.fill(both.client, both.server)
        both.client.take()
        self.assertEqual(both.clock.getDelayedCalls(), [])

    def test_more_for_a_full_buffer_is_no_progress(self) -> None:
        """What is still written to a full buffer does not begin the stall timeout anew."""
        both = peers()
        self.fill(both.client, both.server)
        for _ in range(7):
            both.clock.advance(1.0)
            both.server.reading = True  # as with TLS, where what was read already still comes
            both.server.deliver(GAME)
        self.assertEqual(len(both.clock.getDelayedCalls()), 1)
        both.clock.advance(1.0)
        self.assertEqual(both.reason, CloseReason.CLIENT_LOST)

    def test_the_side_that_ended_it_has_a_second(self) -> None:
        """To a side that is lost, or has said CLOSE whatever code it gave, goes what came for it for one second; to
        the other as long as it takes something."""
        for slow, fast, end in (
            ("server", "client", lambda both: both.server.end()),
            ("client", "server", lambda both: both.client.end()),
            ("client", "server", lambda both: both.client.deliver(close("bye"))),
        ):
            both = peers()
            reader: FakeTransport = getattr(both, slow)
            writer: FakeTransport = getattr(both, fast)
            self.fill(reader, writer)
            self.fill(writer, reader)
            reader.reading = True
            end(both)
            both.clock.advance(LINGER)
            self.assertEqual(reader.how, "aborted")
            for _ in range(20):
                both.clock.pump([1.0] * 5)
                writer.take(1)
            self.assertIsNone(writer.how)
            both.clock.pump([1.0] * 12)
            self.assertEqual(writer.how, "aborted")

    def test_a_code_does_not_cost_the_other_its_patience(self) -> None:
        """A game server that closes with ``client_lost`` does not take from the client what came for it."""
        both = peers()
        self.fill(both.client, both.server)
        both.server.reading = True
        both.server.deliver(close("client_lost"))
        for _ in range(10):
            both.clock.pump([1.0] * 5)
            both.client.take(1)
        self.assertIsNone(both.client.how)
        self.assertEqual(both.server.how, "aborted")

    def test_nothing_is_watched_after_a_side_has_gone(self) -> None:
        """A side that breaks while its buffer is full is not watched any more."""
        both = peers()
        self.fill(both.client, both.server)
        both.client.reset()
        both.server.reset()
        self.assertEqual(both.clock.getDelayedCalls(), [])
        self.assertEqual(both.reason, CloseReason.CLIENT_LOST)


bodies = st.lists(
    st.one_of(st.just(b""), st.binary(min_size=1, max_size=40).map(lambda b: b"\x10" + b)),
    max_size=8,
)
endings = st.sampled_from(["end", "reset", "close", "bad", "kick", "proxy", None])
steps = st.lists(
    st.tuples(st.sampled_from(["client", "server"]), st.integers(0, 30), st.integers(0, 60)),
    max_size=40,
)


class PropertyTests(SynchronousTestCase):
    """Any traffic."""

    @given(
        bodies, bodies, endings, st.sampled_from(["client", "server"]), steps, st.integers(1, 60)
    )
    @settings(max_examples=200)
    def test_exactly_the_frames_until_the_end(
        self,
        from_client: list[bytes],
        from_server: list[bytes],
        ending: str | None,
        ender: str,
        steps: list[tuple[str, int, int]],
        size: int,
    ) -> None:
        """However both streams are cut and mixed, each side gets exactly the other's game frames in order, up to the
        end; there is one outcome, and then both connections end and no timer is left."""
        both = peers()
        streams = {
            "client": b"".join(map(INT32.encode, from_client)),
            "server": b"".join(map(INT32.encode, from_server)),
        }
        game = dict(streams)
        reason: CloseReason | None = {
            "end": CloseReason[f"{ender.upper()}_LOST"],
            "reset": CloseReason[f"{ender.upper()}_LOST"],
            "close": CloseReason.LEFT,
            "bad": CloseReason.PROTOCOL_ERROR,
            "kick": CloseReason.KICKED if ender == "server" else CloseReason.PROTOCOL_ERROR,
            "proxy": CloseReason.IDLE,
            None: None,
        }[ending]
        last = {
            "close": close("left"),
            "bad": BAD,
            "kick": INT32.encode(Kick("x", "y").encode()),
        }
        transports = {"client": both.client, "server": both.server}
        other = {"client": "server", "server": "client"}
        for side, sent, taken in steps:
            chunk, streams[side] = streams[side][:sent], streams[side][sent:]
            transports[side].deliver(chunk)
            transports[other[side]].take(taken)
        rest = streams[ender] + last.get(ending or "", b"")
        for at in range(0, len(rest), size):
            transports[ender].deliver(rest[at : at + size])
        if ending in ("end", "reset"):
            getattr(transports[ender], ending)()
        elif ending == "proxy":
            both.relay.close(CloseReason.IDLE, "")
        # What comes after the end is nobody's any more.
        cut = other[ender]
        late = streams[cut]
        transports[cut].deliver(late)

        passed = {side: transports[other[side]].written for side in transports}
        self.assertTrue(passed[ender].startswith(game[ender]))
        before_end = game[cut] if ending is None else game[cut][: len(game[cut]) - len(late)]
        if ending is None:
            self.assertEqual(passed, game)
        else:
            whole = b""
            for body in from_client if cut == "client" else from_server:
                frame = INT32.encode(body)
                if len(whole) + len(frame) > len(before_end):
                    part = before_end[len(whole) :]
                    # Of a frame in progress all passes that is known to belong to a good one.
                    whole += part if len(part) > 4 else b""
                    break
                whole += frame
            self.assertTrue(passed[cut].startswith(whole))
            for side, game_part in ((ender, game[ender]), (cut, whole)):
                if rest := passed[side][len(game_part) :]:
                    told(rest)
        self.assertEqual(both.reason, reason)
        if ending is not None:
            both.settle()
            self.assertNotIn(None, (both.client.how, both.server.how))
        self.assertEqual(both.clock.getDelayedCalls(), [])
        self.assertEqual(both.reason, reason)
