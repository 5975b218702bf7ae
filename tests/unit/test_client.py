"""gameproxy.client: connections and sessions, on a loop whose time and network the test moves"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.client import (
    Client,
    End,
    Ending,
    Guest,
    NotWelcomed,
    Password,
    ProtocolError,
    Refused,
    SendBufferFull,
    Session,
    SessionEnded,
    Ticket,
)
from gameproxy.client.connection import LEAVE_TIMEOUT
from gameproxy.client.session import FRAME_COST, SEND_BUFFER_MAX, UNREAD_MAX
from gameproxy.framing import FORMATS, FrameFormat, Framer
from gameproxy.messages import (
    Auth,
    FrameType,
    Notice,
    Status,
    Welcome,
    encode_error,
    encode_settings,
    encode_status,
)
from tests.fake_loop import FakeLoop
from tests.fake_transport import BUFFER, FakeTransport

INT32 = FORMATS["int32"]
WELCOME = Welcome("5e55", "guest:ana", "echo-1", "echo")
CLOSE = Notice("draining", "Connect again.").encode(FrameType.CLOSE)


class ClientTestCase(SynchronousTestCase):
    """Has a client, and the proxy's end of its connection."""

    def setUp(self) -> None:
        self.loop = FakeLoop()
        self.clock = self.loop.clock
        self.told: list[object] = []
        self.format = INT32

    @property
    def proxy(self) -> FakeTransport:
        """The proxy's end of the latest connection."""
        return self.loop.transports[-1]

    def hang_up(self) -> None:
        """The proxy takes all that was sent, and ends the connection."""
        self.proxy.take()
        self.proxy.end()
        self.proxy.take()

    def connecting(self, auth: Any = None, **options: Any) -> Deferred[Session]:
        """A client connects."""
        self.format = options.get("format", INT32)
        client = Client(self.loop, "play.example", 7777, auth or Guest("ana"), **options)
        connecting = Deferred.fromCoroutine(client.connect(self.told.append))
        self.addCleanup(self.give_up, connecting)
        return connecting

    def give_up(self, connecting: Deferred[Any]) -> None:
        connecting.cancel()
        connecting.addErrback(lambda failure: failure.trap(CancelledError))

    def session(self, **options: Any) -> Session:
        """A client that is in."""
        connecting = self.connecting(**options)
        if options.get("dialect") != "plain":
            self.say(WELCOME.encode())
        return self.successResultOf(connecting)

    def say(self, *bodies: bytes) -> None:
        """The proxy sends frames, in one chunk."""
        self.proxy.deliver(b"".join(self.format.encode(body) for body in bodies))

    def sent(self) -> list[bytes]:
        """The bodies that the client has sent."""
        framer = Framer(self.format)
        framer.feed(self.proxy.written)
        return list(framer.frames())

    def receive(self, session: Session) -> Deferred[bytes]:
        """Somebody receives a frame."""
        return Deferred.fromCoroutine(session.receive())

    def received(self, session: Session) -> list[bytes]:
        """The frames that can be received at once."""
        found = []
        while (receiving := self.receive(session)).called:
            if isinstance(receiving.result, bytes):
                found.append(receiving.result)
            else:
                self.failureResultOf(receiving, SessionEnded)
                return found
        receiving.cancel()
        self.failureResultOf(receiving, CancelledError)
        return found

    def ending(self, session: Session) -> Ending:
        """How it ended: the connection exists no more, and nothing is to come."""
        self.hang_up()
        ending: Ending = self.successResultOf(session.ended)  # type: ignore[arg-type]  # a Deferred, here
        self.assertIs(
            self.failureResultOf(self.receive(session), SessionEnded).value.ending, ending
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return ending


class WayInTests(ClientTestCase):
    """From connecting to WELCOME."""

    def test_auth_first(self) -> None:
        """AUTH goes out at once, and small frames are not held back."""
        connecting = self.connecting()
        self.assertEqual(self.loop.addresses, [("play.example", 7777)])
        self.assertEqual(self.sent(), [Auth("guest", name="ana").encode()])
        self.assertTrue(self.proxy.no_delay)
        self.assertNoResult(connecting)

    def test_way_in(self) -> None:
        """STATUS and WELCOME are told; what follows in the same chunk is there, in order."""
        connecting = self.connecting()
        self.say(
            encode_status("queued", 2, "Wait."), WELCOME.encode(), encode_settings(b"s"), b"\x10a"
        )
        self.say(b"")
        session = self.successResultOf(connecting)
        self.assertEqual(self.told, [Status("queued", 2, "Wait.")])
        self.assertEqual(session.welcome, WELCOME)
        self.assertEqual(session.settings, b"s")
        self.assertEqual(self.received(session), [b"\x10a", b""])
        self.assertIsNone(session.ending)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_wants_status(self) -> None:
        """STATUS need not be heeded."""
        client = Client(self.loop, "h", 1, Guest("ana"))
        connecting = Deferred.fromCoroutine(client.connect())
        self.say(encode_status("queued", 2, "Wait."), WELCOME.encode())
        self.successResultOf(connecting)

    def test_refused(self) -> None:
        """ERROR is raised, when the connection is gone; shown, its message is escaped."""
        connecting = self.connecting()
        self.say(encode_error("banned", "Ask.\x1b", 3.0), WELCOME.encode())
        self.assertNoResult(connecting)
        self.hang_up()
        refused = self.failureResultOf(connecting, Refused).value
        self.assertEqual(
            (refused.code, refused.message, refused.retry_after), ("banned", "Ask.\x1b", 3.0)
        )
        self.assertEqual(str(refused), "banned: Ask.\\x1b")
        self.assertEqual(self.proxy.how, "done")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_proxy(self) -> None:
        """What may not come before WELCOME is no protocol of ours."""
        for bad in (
            b"",
            b"\x10early",
            CLOSE,
            b"\x02{}",
            b"\x04[]",
            b'\x04{"state":"queued","position":true,"message":""}',
            b'\x05{"code":"banned","message":"","retry_after":"soon"}',
            b'\x05{"code":"banned","message":"","retry_after":-1}',
            encode_error("banned", "x" * 4096),
        ):
            with self.subTest(bad=bad[:60]):
                self.setUp()
                connecting = self.connecting()
                self.say(bad)
                self.hang_up()
                self.failureResultOf(connecting, ProtocolError)

    def test_lost(self) -> None:
        """A connection that is lost before WELCOME is an OSError."""
        connecting = self.connecting()
        self.proxy.reset()
        self.failureResultOf(connecting, NotWelcomed)
        self.assertTrue(issubclass(NotWelcomed, OSError))

    def test_too_late(self) -> None:
        """A proxy that never says WELCOME is waited for ``welcome_timeout`` seconds."""
        connecting = self.connecting(welcome_timeout=20.0)
        self.clock.advance(19.9)
        self.assertIsNone(self.proxy.how)
        self.assertFalse(self.proxy.stream_ended)
        self.clock.advance(0.1)
        self.proxy.take()
        self.assertTrue(self.proxy.stream_ended)
        self.hang_up()
        self.assertIn("20 s", str(self.failureResultOf(connecting, NotWelcomed).value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot_connect(self) -> None:
        """The loop's error is raised."""
        self.loop.error = ConnectionRefusedError("No.")
        self.failureResultOf(self.connecting(), ConnectionRefusedError)

    def test_cancelled(self) -> None:
        """Cancelling, however far it has come, leaves no connection and no timer."""
        for held in (True, False):
            self.setUp()
            self.loop.hold = held
            connecting = self.connecting()
            connecting.cancel()
            self.failureResultOf(connecting, CancelledError)
            self.assertEqual([one.how for one in self.loop.transports], [] if held else ["aborted"])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connection_that_comes_too_late(self) -> None:
        """A connection that a loop makes though it was cancelled is ended."""
        builds: list[Any] = []

        class LateLoop(FakeLoop):
            def connect(self, host: str, port: int, timeout: float, build: Any) -> Deferred[None]:
                builds.append(build)
                return Deferred()

        connecting = Deferred.fromCoroutine(Client(LateLoop(), "h", 1, Guest("a")).connect())
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        late: list[str] = []

        class LateStream:
            def abort(self) -> None:
                late.append("aborted")

        builds[0]().opened(LateStream())
        self.assertEqual(late, ["aborted"])

    def test_status_function_fails(self) -> None:
        """A function of the program's that fails ends the connection, and is not hidden."""
        client = Client(self.loop, "h", 1, Guest("ana"))

        def fails(status: Status) -> None:
            raise ZeroDivisionError

        connecting = Deferred.fromCoroutine(client.connect(fails))
        self.assertRaises(ZeroDivisionError, self.say, encode_status("queued", 2, ""))
        self.assertEqual(self.proxy.how, "aborted")
        self.failureResultOf(connecting, NotWelcomed)

    def test_who(self) -> None:
        """Guests, tickets and passwords, with a game and properties; each connection asks a function anew."""
        for auth, wanted in (
            (Guest("ana", game="chess"), Auth("guest", name="ana", game="chess")),
            (Ticket("t", properties={"a": 1}), Auth("ticket", ticket="t", properties='{"a":1}')),
            (Password("ana", "s"), Auth("password", username="ana", password="s")),
            (lambda: Guest("bob"), Auth("guest", name="bob")),
            (lambda: succeed(Guest("eve")), Auth("guest", name="eve")),
        ):
            self.connecting(auth)
            self.assertEqual(self.sent(), [wanted.encode()])

    def test_too_large(self) -> None:
        """AUTH and properties that no proxy takes are refused here."""
        self.failureResultOf(self.connecting(Ticket("x" * 4096)), ValueError)
        self.assertEqual(self.loop.transports, [])
        self.assertRaises(ValueError, Guest, "a", properties={"a": "x" * 512})
        self.assertRaises(ValueError, Guest, "a", properties={"a": float("nan")})

    def test_no_such_dialect(self) -> None:
        """A dialect that there is not is refused."""
        self.assertRaises(ValueError, Client, self.loop, "h", 1, Guest("a"), dialect="Plain")

    def test_without_twisted(self) -> None:
        """With asyncio nothing of Twisted is imported."""
        program = (
            "import sys, gameproxy.client, gameproxy.loops.on_asyncio;"
            "sys.exit(any(name.split('.')[0] == 'twisted' for name in sys.modules))"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


class SessionTests(ClientTestCase):
    """Frames both ways."""

    def test_large_frames(self) -> None:
        """Once in, max_frame holds."""
        session = self.session()
        self.say(b"\x10" * 5000)
        self.assertEqual(self.received(session), [b"\x10" * 5000])

    def test_receive_waits(self) -> None:
        """Who receives waits for the next frame; one who gives up takes none."""
        session = self.session()
        first, second = self.receive(session), self.receive(session)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.say(b"\x10a", b"\x10b")
        self.assertEqual(self.successResultOf(second), b"\x10a")
        self.assertEqual(self.received(session), [b"\x10b"])

    def test_send(self) -> None:
        """Frames go as they are; those of a type of the proxy's, or too large for the format, are refused."""
        session = self.session(format=FORMATS["int16"])
        session.send(b"\x10a")
        session.send(b"")
        self.assertRaises(ValueError, session.send, b"\x0fa")
        self.assertRaises(ValueError, session.send, b"\x10" * 65536)
        self.assertEqual(self.sent()[1:], [b"\x10a", b""])

    def test_send_after_the_end(self) -> None:
        """What is sent after the end is not lost without a word."""
        session = self.session()
        self.say(Notice("dr\x07aining", "Connect again.\x1b").encode(FrameType.CLOSE))
        error = self.assertRaises(SessionEnded, session.send, b"\x10a")
        self.assertEqual(str(error), "dr\\x07aining: Connect again.\\x1b")

    def test_proxy_does_not_take(self) -> None:
        """What waits is bounded; the session goes on, and it can be awaited that all is taken."""
        session = self.session()
        self.assertIsNone(self.successResultOf(session.drained()))
        body = b"\x10" + bytes(65535)
        with self.assertRaises(SendBufferFull):
            for _ in range(30):
                session.send(body)
        self.assertGreater(session.behind, SEND_BUFFER_MAX)
        self.assertLess(session.behind, SEND_BUFFER_MAX + 2 * len(body))
        drained = session.drained()
        self.assertNoResult(drained)
        self.say(b"\x10still read")
        self.assertEqual(self.received(session), [b"\x10still read"])
        while self.proxy.unsent:
            self.proxy.take()
        self.assertIsNone(self.successResultOf(drained))
        session.send(b"\x10on")
        self.assertEqual(self.sent()[-1], b"\x10on")

    def test_end_while_draining(self) -> None:
        """Who waits until all is taken is told when that will never be."""
        session = self.session()
        for _ in range(4):
            session.send(b"\x10" + bytes(BUFFER))
        drained = session.drained()
        self.assertNoResult(drained)
        self.proxy.reset()
        self.assertIsNone(self.successResultOf(drained))
        self.assertIsNone(self.successResultOf(session.drained()))

    def test_unread_frames_are_bounded(self) -> None:
        """When nobody receives, no more is read, small frames or large; and it goes on when all is received."""
        for body in (b"\x10" + bytes(1000), b""):
            self.setUp()
            session = self.session()
            number, most = 0, -(-UNREAD_MAX // (len(body) + FRAME_COST))
            while self.proxy.reading:
                self.say(*[body] * 10)
                number += 10
            self.assertLess(number, most + 11)
            for _ in range(50):
                self.say(body)  # they wait at the proxy
            self.assertEqual(len(session._unread), most)
            got = len(self.received(session))
            self.proxy.deliver()
            self.assertTrue(self.proxy.reading)
            self.assertEqual(got + len(self.received(session)), number + 50)

    def test_unread_frames_of_a_lump(self) -> None:
        """Frames beyond the bound that came in one chunk wait too, and none is lost when the connection is."""
        session = self.session()
        number = 3 * UNREAD_MAX // FRAME_COST
        self.say(*[b""] * number, CLOSE)
        self.assertLessEqual(len(session._unread), UNREAD_MAX // FRAME_COST + 1)
        self.assertIsNone(session.ending)
        self.assertEqual(self.receive(session).result, b"")
        self.proxy.reset()
        self.assertEqual(len(self.received(session)), number - 1)
        self.assertEqual(self.ending(session).code, "draining")

    def test_on_frame(self) -> None:
        """A function gets each frame, first those that were there; until it is taken away."""
        session = self.session()
        self.say(b"\x10a", b"\x10b")
        got: list[bytes] = []
        session.on_frame = got.append
        self.say(b"\x10c")
        self.assertEqual(got, [b"\x10a", b"\x10b", b"\x10c"])
        self.assertIsNotNone(session.on_frame)
        session.on_frame = None
        self.say(b"\x10d")
        self.assertEqual(self.received(session), [b"\x10d"])

    def test_on_frame_after_a_lump(self) -> None:
        """A function that comes late gets all that waits, wherever."""
        session = self.session()
        number = 2 * UNREAD_MAX // FRAME_COST
        self.say(*[b""] * number)
        got: list[bytes] = []
        session.on_frame = got.append
        self.assertEqual(len(got), number)
        self.assertTrue(self.proxy.reading)

    def test_on_frame_that_leaves(self) -> None:
        """A function that leaves gets no more."""
        for early in (True, False):
            self.setUp()
            session = self.session()
            got: list[bytes] = []

            def leave(body: bytes, session: Session = session, got: list[bytes] = got) -> None:
                got.append(body)
                session.leave()

            if early:
                session.on_frame = leave
            self.say(b"\x10a", b"\x10b")
            session.on_frame = leave
            self.assertEqual(got, [b"\x10a"])
            self.assertEqual(self.ending(session).end, End.LEFT)

    def test_function_fails(self) -> None:
        """A function of the program's that fails ends the session, gets no more, and is not hidden."""
        got: list[bytes] = []

        def fails(body: bytes) -> None:
            got.append(body)
            raise ZeroDivisionError

        session = self.session()
        session.on_frame = fails
        self.assertRaises(ZeroDivisionError, self.say, b"\x10a", b"\x10b")
        self.assertEqual(got, [b"\x10a"])
        ending = self.ending(session)
        self.assertEqual((ending.end, ending.code), (End.LOST, "internal"))

    def test_settings(self) -> None:
        """Settings are kept, the last of them, and told to whoever wants to know, now and later."""
        session = self.session()
        got: list[bytes] = []
        session.on_settings = got.append
        self.say(encode_settings(b"1"))
        self.say(encode_settings(b"2"))
        self.assertEqual((session.settings, got), (b"2", [b"1", b"2"]))
        session.on_settings = got.append
        self.assertEqual(got, [b"1", b"2", b"2"])
        self.assertIsNotNone(session.on_settings)


class EndTests(ClientTestCase):
    """How sessions end."""

    def test_closed(self) -> None:
        """CLOSE ends it; frames before it can still be received, and nothing after it is told."""
        session = self.session()
        self.say(b"\x10last", CLOSE, b"\x10late")
        self.assertEqual(self.received(session), [b"\x10last"])
        self.assertEqual(self.ending(session), Ending(End.CLOSED, "draining", "Connect again."))

    def test_broken_protocol(self) -> None:
        """What may not come while playing ends the connection."""
        for bad in (WELCOME.encode(), encode_status("queued", 1, ""), b"\x06{}", b"\x0fx"):
            with self.subTest(bad=bad):
                self.setUp()
                session = self.session()
                self.say(bad)
                ending = self.ending(session)
                self.assertEqual((ending.end, ending.code), (End.LOST, "protocol_error"))

    def test_lost(self) -> None:
        """A connection that ends or breaks without a word is lost; who waits for a frame is told."""
        for how in (self.hang_up, lambda: self.proxy.reset()):
            self.setUp()
            session = self.session()
            receiving = self.receive(session)
            how()
            self.failureResultOf(receiving, SessionEnded)
            self.assertEqual(self.ending(session).end, End.LOST)

    def test_leave(self) -> None:
        """CLOSE is sent once; what still comes is not told, and it is for the proxy to close."""
        session = self.session()
        self.say(b"\x10unread")
        left = session.leave("Bye.")
        session.leave("Bye again.")
        self.assertEqual(self.sent()[1:], [Notice("left", "Bye.").encode(FrameType.CLOSE)])
        self.say(b"\x10late")
        self.assertNoResult(left)
        self.assertFalse(self.proxy.disconnecting)
        receiving = self.receive(session)
        self.assertNoResult(receiving)
        self.proxy.reset()
        self.failureResultOf(receiving, SessionEnded)
        self.assertEqual(self.successResultOf(left), Ending(End.LEFT, "left", "Bye."))
        self.assertEqual(self.ending(session).end, End.LEFT)

    def test_leave_with_too_much_to_say(self) -> None:
        """A CLOSE that the proxy would not take is refused, and the session goes on."""
        session = self.session()
        self.assertRaises(ValueError, session.leave, "x" * 4096)
        session.send(b"\x10on")
        self.assertEqual(self.sent()[1:], [b"\x10on"])

    def test_leave_when_nobody_reads(self) -> None:
        """Who leaves reads again, to hear that the proxy closes."""
        session = self.session()
        self.say(*[b""] * (UNREAD_MAX // FRAME_COST + 1))
        self.assertFalse(self.proxy.reading)
        session.leave()
        self.assertTrue(self.proxy.reading)
        self.assertEqual(self.ending(session).end, End.LEFT)

    def test_garbage_after_leaving(self) -> None:
        """Who has left has left, whatever comes then."""
        session = self.session()
        session.leave()
        self.proxy.deliver(b"\xff" * 4)
        self.assertEqual(self.ending(session).end, End.LEFT)

    def test_proxy_does_not_close(self) -> None:
        """A proxy that does not close after CLOSE is waited for LEAVE_TIMEOUT seconds."""
        session = self.session()
        session.leave()
        self.clock.advance(LEAVE_TIMEOUT - 0.1)
        self.assertIsNone(self.proxy.how)
        self.clock.advance(0.1)
        self.assertEqual(self.proxy.how, "aborted")
        self.assertEqual(self.ending(session).end, End.LEFT)

    def test_abort(self) -> None:
        """An abort is at once, also after leaving; twice changes nothing."""
        for leaves in (True, False):
            self.setUp()
            session = self.session()
            if leaves:
                session.leave()
            session.abort()
            session.abort()
            self.assertEqual(self.proxy.how, "aborted")
            self.assertEqual(self.ending(session).end, End.LEFT)

    def test_ended_for_each(self) -> None:
        """Each who waits for the end has a future of its own: one who gives up takes nothing from the others."""
        session = self.session()
        one, other = session.ended, session.ended
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.proxy.reset()
        self.assertEqual(self.successResultOf(other).end, End.LOST)

    def test_many_who_give_up(self) -> None:
        """Those who have given up waiting are forgotten."""
        session = self.session()
        for _ in range(100):
            self.failureResultOf(self.cancelled(session.ended), CancelledError)
        self.assertLess(len(session._ends._waiting), 2)

    def cancelled(self, future: Any) -> Any:
        future.cancel()
        return future

    def test_iteration(self) -> None:
        """Iteration ends when the client leaves or the game server ends the game, and raises when it is cut off."""
        for last, orderly in (
            (None, True),
            (Notice("left", "").encode(FrameType.CLOSE), True),
            (Notice("checkmate", "").encode(FrameType.CLOSE), True),
            (CLOSE, False),
            (Notice("server_lost", "").encode(FrameType.CLOSE), False),
            (b"\x06{}", False),
        ):
            with self.subTest(last=last):
                self.setUp()
                session = self.session()
                got: list[bytes] = []
                playing = Deferred.fromCoroutine(self.iterate(session, got))
                self.say(b"\x10a", b"\x10b")
                if last is None:
                    session.leave()
                else:
                    self.say(last)
                self.ending(session)
                self.assertEqual(got, [b"\x10a", b"\x10b"])
                if orderly:
                    self.successResultOf(playing)
                else:
                    self.failureResultOf(playing, SessionEnded)

    async def iterate(self, session: Session, got: list[bytes]) -> None:
        async for body in session:
            got.append(body)

    def test_context(self) -> None:
        """At the end of a block the session is left; after an error, at once."""

        async def block(session: Session, error: Exception | None) -> None:
            async with session:
                session.send(b"\x10a")
                if error:
                    raise error

        done = Deferred.fromCoroutine(block(self.session(), None))
        self.assertNoResult(done)
        self.assertEqual(self.sent()[-1][:1], b"\x06")
        self.hang_up()
        self.successResultOf(done)
        self.setUp()
        done = Deferred.fromCoroutine(block(self.session(), ZeroDivisionError()))
        self.failureResultOf(done, ZeroDivisionError)
        self.assertEqual(self.proxy.how, "aborted")


class DialectTests(ClientTestCase):
    """Where types are the game's own."""

    def test_preamble(self) -> None:
        """After WELCOME every frame is the game's, whatever its type; leaving is the end of the stream."""
        session = self.session(dialect="preamble")
        self.say(CLOSE, b"\x01", b"")
        self.assertEqual(self.received(session), [CLOSE, b"\x01", b""])
        session.send(b"\x01mine")
        left = session.leave("Bye.")
        self.assertEqual(self.sent()[1:], [b"\x01mine"])
        self.proxy.take()
        self.assertTrue(self.proxy.stream_ended)
        self.hang_up()
        self.assertEqual(self.successResultOf(left).end, End.LEFT)

    def test_preamble_refused(self) -> None:
        """Before WELCOME it is as in native."""
        connecting = self.connecting(dialect="preamble")
        self.say(encode_error("banned", "Ask."))
        self.hang_up()
        self.failureResultOf(connecting, Refused)

    def test_plain(self) -> None:
        """Nothing of the proxy's own is on the wire; the client is in at once."""
        format = FrameFormat(length_bytes=2, max_frame=100)
        session = self.session(dialect="plain", format=format)
        self.assertIsNone(session.welcome)
        self.assertEqual(self.proxy.written, b"")
        session.send(b"\x01")
        self.assertEqual(self.proxy.written, b"\0\1\1")
        self.say(CLOSE[:50], b"\x02{}")
        self.assertEqual(self.received(session), [CLOSE[:50], b"\x02{}"])
        self.hang_up()
        self.assertEqual(self.ending(session).end, End.LOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])


@given(
    st.lists(st.binary(max_size=60), max_size=5),
    st.booleans(),
    st.sampled_from(["native", "preamble", "plain"]),
)
def test_any_bytes(chunks: list[bytes], is_in: bool, dialect: str) -> None:
    """Whatever a proxy sends, nothing but what is promised is raised, and the end comes once."""
    loop = FakeLoop()
    client = Client(loop, "h", 1, Guest("ana"), dialect=dialect)  # type: ignore[arg-type]  # one of them
    connecting = Deferred.fromCoroutine(client.connect())
    ends: list[object] = []

    async def play(session: Session) -> None:
        try:
            while True:
                await session.receive()
        except SessionEnded as end:
            ends.append(end)

    connecting.addCallback(lambda session: Deferred.fromCoroutine(play(session)))
    connecting.addErrback(
        lambda failure: ends.append(failure.trap(Refused, ProtocolError, NotWelcomed))
    )
    if is_in:
        loop.transports[0].deliver(INT32.encode(WELCOME.encode()))
    for chunk in chunks:
        loop.transports[0].deliver(chunk)
    loop.transports[0].reset()
    assert len(ends) == 1
    assert loop.clock.getDelayedCalls() == []
