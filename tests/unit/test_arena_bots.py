"""gameproxy.arena.bots"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.bots import ECHO_TIMEOUT, REST, STAY, Crowd
from gameproxy.framing import FORMATS, Framer
from gameproxy.messages import FrameType, Notice, Welcome, decode_auth, encode_error
from gameproxy.testing import seeded_entropy
from tests.fake_loop import FakeLoop
from tests.fake_transport import FakeTransport

INT32 = FORMATS["int32"]
STEP = 0.05


class EchoLoop(FakeLoop):
    """A loop whose connections lead to a proxy with an echo game behind it.

    :ivar visits: the connections, in order.
    :ivar alters: what comes back of a frame; ``None``: nothing.
    :ivar refusal: sent in place of WELCOME.
    """

    def __init__(self) -> None:
        super().__init__()
        self.visits: list[EchoVisit] = []
        self.alters = lambda body: body
        self.refusal: bytes | None = None

    def run(self) -> None:  # type: ignore[override]  # nothing runs a loop that a test turns
        """Answer what has been sent."""
        for transport in self.transports[len(self.visits) :]:
            self.visits.append(EchoVisit(self, transport))
        for visit in self.visits:
            visit.answer()


class EchoVisit:
    """One connection: what a proxy would do with it.

    :ivar frames: how many frames of the game have come.
    """

    def __init__(self, endpoint: EchoLoop, transport: FakeTransport) -> None:
        self.transport = transport
        self.name = ""
        self.frames = 0
        self.left = False
        self._endpoint = endpoint
        self._framer = Framer(INT32)

    def answer(self) -> None:
        new = self.transport.unsent
        self.transport.take()
        self._framer.feed(new)
        for body in self._framer.frames():
            if body[0] == FrameType.AUTH:
                self.name = decode_auth(body[1:]).name or ""
                welcome = Welcome("5e55", self.name, "echo-1", "echo").encode()
                self.say(self._endpoint.refusal or welcome)
            elif body[0] == FrameType.CLOSE:
                self.left = True
                self.transport.reset()
            else:
                self.frames += 1
                back = self._endpoint.alters(body)
                if back is not None:
                    self.say(back)

    def say(self, body: bytes) -> None:
        self.transport.deliver(INT32.encode(body))


class CrowdTests(SynchronousTestCase):
    """Bots, and what they notice."""

    def setUp(self) -> None:
        self.endpoint = EchoLoop()
        self.clock = self.endpoint.clock
        self.troubles: list[str] = []
        self.crowd = self.make_crowd(3)

    def make_crowd(self, count: int) -> Crowd:
        entropy = seeded_entropy()
        return Crowd(self.endpoint, "127.0.0.1", 7777, entropy, count, self.troubles.append)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP)):
            self.endpoint.run()
            self.clock.advance(STEP)
        self.endpoint.run()

    def test_they_come_and_go(self) -> None:
        """Each bot plays, leaves by CLOSE within its time, and comes again under its name."""
        self.crowd.start()
        self.pass_time(1)
        self.assertEqual(
            [visit.name for visit in self.endpoint.visits], ["bot-1", "bot-2", "bot-3"]
        )
        self.pass_time(STAY[1] + REST[1] + 1)
        self.assertEqual(self.troubles, [])
        for number in (1, 2, 3):
            visits = [one for one in self.endpoint.visits if one.name == f"bot-{number}"]
            self.assertGreater(len(visits), 1)
            self.assertTrue(visits[0].left)
            self.assertGreater(visits[0].frames, STAY[0] / 0.4 - 1)

    def test_same_chance_same_demo(self) -> None:
        """With the same entropy the same frames are sent."""

        def frames() -> list[int]:
            self.setUp()
            self.crowd.start()
            self.pass_time(10)
            return [visit.frames for visit in self.endpoint.visits]

        self.assertEqual(frames(), frames())

    def test_stop(self) -> None:
        """When stopped, all leave, and it is told when they are gone; none comes again."""
        self.crowd.start()
        self.pass_time(1)
        gone = self.crowd.stop()
        self.assertNoResult(gone)
        self.pass_time(STAY[1] + REST[1])
        self.successResultOf(gone)
        self.assertEqual([visit.left for visit in self.endpoint.visits], [True] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_at_rest(self) -> None:
        """A bot that rests when it is stopped does not come again."""
        self.crowd = self.make_crowd(1)
        self.crowd.start()
        while not (self.endpoint.visits and self.endpoint.visits[0].left):
            self.pass_time(STEP)
        self.successResultOf(self.crowd.stop())
        self.pass_time(2 * REST[1])
        self.assertEqual(len(self.endpoint.visits), 1)

    def test_stop_while_connecting(self) -> None:
        """A bot that is still connecting gives up, and that is no trouble."""
        self.endpoint.hold = True
        self.crowd.start()
        self.successResultOf(self.crowd.stop())
        self.assertEqual(self.troubles, [])

    def test_stop_before_welcome(self) -> None:
        """A bot that is not in yet closes its connection."""
        self.crowd.start()
        self.successResultOf(self.crowd.stop())
        self.assertEqual([one.how for one in self.endpoint.transports], ["aborted"] * 3)
        self.assertEqual(self.troubles, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot_connect(self) -> None:
        """A bot that cannot connect says so, and can be stopped."""
        self.crowd = self.make_crowd(1)
        self.endpoint.error = ConnectionRefusedError("Nobody is there.")
        self.crowd.start()
        self.assertEqual(len(self.troubles), 1)
        self.assertIn("bot-1 could not connect: ", self.troubles[0])
        self.successResultOf(self.crowd.stop())

    def test_wrong_echo(self) -> None:
        """A bot notices that something else comes back, and comes no more."""
        self.crowd = self.make_crowd(1)
        self.endpoint.alters = lambda body: body[:-1] + bytes([body[-1] ^ 1])
        self.crowd.start()
        self.pass_time(20)
        self.assertEqual(self.troubles, ["bot-1 got another frame than it had sent"])
        self.assertEqual(len(self.endpoint.visits), 1)
        self.successResultOf(self.crowd.stop())

    def test_one_echo_too_many(self) -> None:
        """A bot notices a frame that it has not sent."""
        self.crowd = self.make_crowd(1)
        self.crowd.start()
        self.pass_time(1)
        self.endpoint.visits[0].say(b"\x10surprise")
        self.pass_time(1)
        self.assertEqual(self.troubles, ["bot-1 got another frame than it had sent"])

    def test_no_echo(self) -> None:
        """A bot waits ECHO_TIMEOUT seconds for something to come back."""
        self.crowd = self.make_crowd(1)
        self.endpoint.alters = lambda body: None
        self.crowd.start()
        self.pass_time(ECHO_TIMEOUT - 0.5)
        self.assertEqual(self.troubles, [])
        self.pass_time(1.5)
        self.assertEqual(self.troubles, ["bot-1 got nothing back for 5 s"])

    def test_last_echo(self) -> None:
        """A bot leaves only when all has come back."""
        self.crowd = self.make_crowd(1)
        held: list[bytes] = []
        self.endpoint.alters = held.append
        self.crowd.start()
        self.pass_time(0.2)
        visit = self.endpoint.visits[0]
        while not visit.left:
            for body in held:
                visit.say(body)
            held.clear()
            for _ in range(60):
                if not visit.left:
                    self.pass_time(STEP)
        self.assertEqual((held, self.troubles), ([], []))

    def test_refused(self) -> None:
        """ERROR is trouble, with its code and message."""
        self.crowd = self.make_crowd(1)
        self.endpoint.refusal = encode_error("queue_full", "Later.")
        self.crowd.start()
        self.pass_time(1)
        self.assertEqual(self.troubles, ["bot-1 was cut off: queue_full: Later."])

    def test_closed(self) -> None:
        """CLOSE is trouble: nobody but the bot ends its session."""
        self.crowd = self.make_crowd(1)
        self.crowd.start()
        self.pass_time(1)
        self.endpoint.visits[0].say(Notice("server_lost", "Gone.").encode(FrameType.CLOSE))
        self.pass_time(1)
        self.assertEqual(self.troubles, ["bot-1 was cut off: server_lost: Gone."])
