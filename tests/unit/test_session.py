"""gameproxy.session: each state and each input, by example"""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import gameproxy.testing
from gameproxy.interfaces import (
    AttemptFailed,
    Identity,
    Introduction,
    Outcome,
    Relay,
    SessionRecord,
    Slot,
    SlotRequest,
    Traffic,
    Waiting,
)
from gameproxy.messages import Auth
from gameproxy.reasons import ADVICE, CloseReason, Refusal
from gameproxy.session import Session
from gameproxy.testing import PEER, MemoryClient, MemoryFarm, MemorySurroundings
from gameproxy.wire import Side

ANN = Auth("guest", name="ann", properties='{"team":1}')
STATES = (
    "accepted",
    "expecting",
    "authenticating",
    "selecting",
    "connecting",
    "relaying",
    "closing",
    "closed",
)
SLOT = Slot("s", "other", "chess", "192.0.2.9", 1, bytes(32))
IDLE = Refusal(CloseReason.IDLE)
LEFT = Outcome(CloseReason.LEFT, "The client left.")


class Stage:
    """A session that has come so far, and no further.

    :param state: which one it has come to.
    """

    def __init__(self, state: str, around: MemorySurroundings | None = None) -> None:
        self.around = around or MemorySurroundings()
        if state == "accepted":
            self.client = MemoryClient()
            self.session = Session("5", PEER, self.client, self.around)
            self.client.session = self.session
        else:
            self.client = self.around.connect()
            self.session = self.client.session
        self.inputs = self.session.inputs
        self.around.authenticator.hold = state == "authenticating"
        self.around.farm.hold = state == "selecting"
        self.around.hold = state == "connecting"
        if state not in ("accepted", "expecting"):
            self.inputs.authenticate(ANN)
        if state in ("closing", "closed"):
            self.inputs.end(IDLE)
        if state == "closed":
            self.disconnect()

    @property
    def state(self) -> str:
        return self.session.state

    @property
    def record(self) -> SessionRecord:
        """Of its end; there must be exactly one."""
        (record,) = self.around.records
        return record

    def disconnect(self) -> None:
        """What connections there are exist no more."""
        for attempt in self.around.attempts:
            if not attempt.gone.called:
                attempt.disconnect()
        if not self.client.gone.called:
            self.client.disconnect()

    def calls(self) -> int:
        """How many delayed calls are pending."""
        return len(cast(Clock, self.around.clock).getDelayedCalls())


class StatesTest(SynchronousTestCase):
    """Every input in every state."""

    def test_reached(self) -> None:
        """The stages of these tests are what they are called."""
        for state in STATES[1:]:
            self.assertEqual(Stage(state).state, state)

    def test_end(self) -> None:
        """In every state ``end`` ends the session: with its reason, unless it was ending already; the client is told
        once, by an error before it relays and by the relay then; nothing is under way any more."""
        for state in STATES[:6]:
            stage = Stage(state)
            stage.inputs.end(Refusal(CloseReason.DRAINING))
            stage.inputs.end(IDLE)
            self.assertEqual(stage.state, "closing", state)
            stage.disconnect()
            self.assertEqual(stage.state, "closed", state)
            self.assertEqual(stage.record.reason, CloseReason.DRAINING, state)
            self.assertEqual(stage.record.message, ADVICE[CloseReason.DRAINING])
            self.assertEqual(stage.calls(), 0, state)
            told = ["welcome"] if state == "relaying" else ["draining"]
            self.assertEqual(stage.client.told, told, state)
            relayed = [relay.closed for relay in stage.around.relays]
            self.assertEqual(relayed, [CloseReason.DRAINING] if state == "relaying" else [], state)

    def test_client_ended(self) -> None:
        """In every state the client's going ends the session as ``client_lost``."""
        for state in STATES[:6]:
            stage = Stage(state)
            stage.inputs.client_ended()
            stage.inputs.client_ended()
            self.assertEqual(stage.state, "closing", state)
            stage.disconnect()
            self.assertEqual(stage.record.reason, CloseReason.CLIENT_LOST, state)
            self.assertEqual(stage.calls(), 0, state)
            told = ["welcome"] if state == "relaying" else ["end"]
            self.assertEqual(stage.client.told, told, state)

    def test_abandons(self) -> None:
        """Who ends while its game server is being connected abandons the attempt."""
        for end in (lambda s: s.inputs.end(IDLE), lambda s: s.inputs.client_ended()):
            stage = Stage("connecting")
            end(stage)
            self.assertTrue(stage.around.attempts[0].abandoned)

    def test_authenticate_twice(self) -> None:
        """A second AUTH is a ``protocol_error``, wherever the session stands."""
        for state in STATES[2:6]:
            stage = Stage(state)
            stage.inputs.authenticate(ANN)
            stage.disconnect()
            self.assertEqual(stage.record.reason, CloseReason.PROTOCOL_ERROR, state)
            self.assertEqual(len(stage.around.authenticator.asked), 1, state)

    def test_authenticate_before_start(self) -> None:
        """AUTH that comes before anybody said start is AUTH."""
        stage = Stage("accepted")
        stage.inputs.authenticate(ANN)
        self.assertEqual(stage.state, "relaying")

    def test_start_twice(self) -> None:
        """A second start changes nothing, in any state."""
        for state in STATES[1:]:
            stage = Stage(state)
            before = stage.calls()
            stage.inputs.start()
            self.assertEqual((stage.state, stage.calls()), (state, before))

    def test_what_was_not_waited_for(self) -> None:
        """A result for which a state does not wait changes nothing in it."""
        waited_for = {
            "authenticating": ("_identified", "_refused"),
            "selecting": ("_placed", "_refused"),
            "connecting": ("_attempt_failed", "_admitted", "_refused"),
            "relaying": ("_relay_ended", "_refused"),
            "closing": ("_all_gone",),
        }
        for state in STATES:
            around = Stage("connecting").around
            results: dict[str, object] = {
                "_identified": Identity("eve", "guest"),
                "_placed": SLOT,
                "_attempt_failed": AttemptFailed(CloseReason.HANDSHAKE_FAILED, ""),
                "_admitted": around.attempts[0],
                "_refused": IDLE,
                "_relay_ended": LEFT,
            }
            for name in (*results, "_all_gone"):
                if name in waited_for.get(state, ()):
                    continue
                stage = Stage(state)
                before = stage.session.state, list(stage.client.told), stage.calls()
                arguments = [results[name]] if name in results else []
                getattr(stage.inputs, name)(*arguments)
                after = stage.session.state, list(stage.client.told), stage.calls()
                self.assertEqual(after, before, f"{name} in {state}")
                self.assertEqual(len(stage.around.records), int(state == "closed"))

    def test_too_late(self) -> None:
        """What a session is told when it ends or is over changes nothing."""
        for state in ("closing", "closed"):
            stage = Stage(state)
            stage.inputs.authenticate(ANN)
            stage.inputs.end(Refusal(CloseReason.KICKED))
            stage.inputs.client_ended()
            self.assertEqual(stage.state, state)
            stage.disconnect()
            self.assertEqual(stage.record.reason, CloseReason.IDLE)


class WayTest(SynchronousTestCase):
    """The way of a session that goes well."""

    def test_whole(self) -> None:
        """From AUTH to its end: a game server is told whom it gets, the relay runs, the record tells all of it."""
        around = MemorySurroundings()
        clock = cast(Clock, around.clock)
        stage = Stage("relaying", around)
        (attempt,), (relay,) = around.attempts, around.relays
        id = stage.session.id
        self.assertEqual(attempt.introduction, Introduction(id, "ann", PEER, '{"team":1}'))
        self.assertEqual(attempt.slot.server, "server-1")
        self.assertTrue(relay.started)
        self.assertEqual(around.identities, [id])
        self.assertEqual(around.farm.relayed, [id])
        self.assertEqual(stage.calls(), 0)
        relay.traffic = Traffic(1, 2, 3, 4)
        clock.advance(60)
        relay.end(LEFT)
        stage.disconnect()
        self.assertEqual(
            stage.record,
            SessionRecord(
                session=id,
                peer=PEER,
                reason=CloseReason.LEFT,
                message="The client left.",
                detail="",
                player="ann",
                game="chess",
                server="server-1",
                started_at=0.0,
                ended_at=60.0,
                traffic=Traffic(1, 2, 3, 4),
                relayed_at=0.0,
            ),
        )

    def test_short(self) -> None:
        """Of a session that never said who it is the record has no more than there is."""
        stage = Stage("expecting")
        stage.inputs.client_ended()
        stage.disconnect()
        record = stage.record
        self.assertEqual((record.player, record.game, record.server), (None, None, None))
        self.assertEqual(record.traffic, Traffic())

    def test_release(self) -> None:
        """The slot goes back once, and not before the game server's connection is gone, whoever goes first."""
        for state in ("connecting", "relaying"):
            stage = Stage(state)
            stage.inputs.end(IDLE)
            stage.client.disconnect()
            self.assertEqual(stage.around.farm.released, [], state)
            self.assertEqual(stage.around.records, [])
            stage.around.attempts[0].disconnect()
            self.assertEqual(stage.around.farm.released, [stage.session.id], state)
            self.assertEqual(stage.state, "closed")

    def test_lingering_client(self) -> None:
        """A client that takes its time does not keep the slot; but the session is not over before it is gone."""
        stage = Stage("relaying")
        stage.inputs.end(IDLE)
        stage.around.attempts[0].disconnect()
        self.assertEqual(stage.around.farm.released, [stage.session.id])
        self.assertEqual(stage.around.records, [])
        stage.client.disconnect()
        self.assertEqual(len(stage.around.records), 1)

    def test_no_release(self) -> None:
        """Who never asked for a slot gives none back."""
        stage = Stage("authenticating")
        stage.inputs.end(IDLE)
        self.assertEqual(stage.around.farm.released, [])

    def test_release_of_waiting(self) -> None:
        """Who leaves the queue gives back its place there, at once."""
        stage = Stage("selecting")
        stage.inputs.client_ended()
        self.assertEqual(stage.around.farm.released, [stage.session.id])

    def test_waiting(self) -> None:
        """Who waits is told how, and that it is being connected when it is."""
        around = MemorySurroundings(farm=MemoryFarm({"server-1": 1}))
        first, second = Stage("relaying", around), Stage("relaying", around)
        self.assertEqual(second.client.told, ["queued"])
        first.inputs.end(IDLE)
        first.disconnect()
        self.assertEqual(second.client.told, ["queued", "connecting", "welcome"])

    def test_late_status(self) -> None:
        """A farm that tells how a session waits when it waits no more puts nothing between the game's frames."""
        told: list[Callable[[Waiting], None]] = []
        around = MemorySurroundings()
        acquire = around.farm.acquire

        def spied(request: SlotRequest, on_waiting: Callable[[Waiting], None]) -> Deferred[Slot]:
            told.append(on_waiting)
            return acquire(request, on_waiting)

        around.farm.acquire = spied  # type: ignore[method-assign]  # a farm with this fault
        stage = Stage("relaying", around)
        told[0](Waiting("queued", 1))
        self.assertEqual(stage.client.told, ["welcome"])


class AuthenticatingTest(SynchronousTestCase):
    """Who is it, and what does it want?"""

    def end_of(self, stage: Stage) -> CloseReason:
        """Why a session has ended."""
        self.assertEqual(stage.state, "closing")
        stage.disconnect()
        self.assertEqual(stage.client.told[-1], stage.record.reason.value)
        self.assertEqual(stage.calls(), 0)
        return stage.record.reason

    def test_no_auth_in_time(self) -> None:
        """Without AUTH it ends with ``auth_timeout``, and not before the time is over."""
        stage = Stage("expecting")
        clock = cast(Clock, stage.around.clock)
        clock.advance(4.9)
        self.assertEqual(stage.state, "expecting")
        clock.advance(0.1)
        self.assertEqual(self.end_of(stage), CloseReason.AUTH_TIMEOUT)

    def test_no_answer_in_time(self) -> None:
        """An authenticator that does not answer is given as long; its late answer changes nothing."""
        stage = Stage("authenticating")
        clock = cast(Clock, stage.around.clock)
        clock.advance(5)
        self.assertEqual(self.end_of(stage), CloseReason.AUTH_TIMEOUT)
        stage.around.authenticator.answer()
        self.assertEqual(stage.around.farm.slots, {})

    def test_refused(self) -> None:
        """Whom the authenticator refuses is told its reason."""
        stage = Stage("authenticating")
        stage.around.authenticator.refusal = Refusal(CloseReason.AUTH_FAILED)
        stage.around.authenticator.answer()
        self.assertEqual(self.end_of(stage), CloseReason.AUTH_FAILED)
        self.assertEqual(stage.around.identities, [])

    def test_broken(self) -> None:
        """An authenticator that fails or raises means ``internal``, and is logged."""

        def raises(request: Auth, peer: object) -> Deferred[Identity]:
            raise ZeroDivisionError

        stage = Stage("authenticating")
        stage.around.authenticator.refusal = ZeroDivisionError()
        stage.around.authenticator.answer()
        self.assertEqual(self.end_of(stage), CloseReason.INTERNAL)
        around = MemorySurroundings()
        around.authenticator.authenticate = raises  # type: ignore[method-assign, assignment]  # broken so
        self.assertEqual(self.end_of(Stage("relaying", around)), CloseReason.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_games(self) -> None:
        """The game is the ticket's, else AUTH's, else the only one; AUTH against the ticket is ``auth_failed``."""
        two = ("chess", "go")
        for games, ticket, auth, expected in (
            (two, "go", None, "go"),
            (two, "go", "go", "go"),
            (two, None, "go", "go"),
            (("chess",), None, None, "chess"),
            (two, "go", "chess", CloseReason.AUTH_FAILED),
            (two, None, None, CloseReason.UNKNOWN_GAME),
            (two, None, "ludo", CloseReason.UNKNOWN_GAME),
            (two, "ludo", None, CloseReason.UNKNOWN_GAME),
            ((), None, None, CloseReason.UNKNOWN_GAME),
        ):
            around = MemorySurroundings(games=games)
            identity = Identity("ann", "ticket", ticket)
            around.authenticator.authenticate = (  # type: ignore[method-assign]  # knows tickets
                lambda request, peer, identity=identity: identity
            )
            client = around.connect()
            client.session.inputs.authenticate(Auth("ticket", game=auth))
            if client.session.slot is None:
                self.assertEqual(client.told, [cast(CloseReason, expected).value])
                self.assertEqual(around.farm.released, [])
            else:
                self.assertEqual(client.session.slot.game, expected)


class PlacingTest(SynchronousTestCase):
    """A slot, and the game server that it is on."""

    def end_of(self, stage: Stage) -> CloseReason:
        """Why a session has ended."""
        stage.disconnect()
        self.assertEqual(stage.around.farm.released, [stage.session.id])
        return stage.record.reason

    def test_farm_refuses(self) -> None:
        """What the farm refuses with, the session ends with."""
        stage = Stage("selecting")
        stage.around.farm.refusal = Refusal(CloseReason.QUEUE_TIMEOUT)
        stage.around.farm.serve()
        self.assertEqual(stage.client.told, ["queue_timeout"])
        self.assertEqual(self.end_of(stage), CloseReason.QUEUE_TIMEOUT)

    def test_farm_breaks(self) -> None:
        """A farm that fails otherwise means ``internal``, and is logged."""
        stage = Stage("selecting")
        stage.around.farm.refusal = ZeroDivisionError()
        stage.around.farm.serve()
        self.assertEqual(self.end_of(stage), CloseReason.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_late_slot(self) -> None:
        """A slot that comes when the session has ended meanwhile is not used."""
        stage = Stage("selecting")
        stage.inputs.client_ended()
        stage.around.farm.serve()
        self.assertEqual(stage.around.attempts, [])
        self.assertEqual(self.end_of(stage), CloseReason.CLIENT_LOST)

    def test_another(self) -> None:
        """When a game server does not answer or is full, another is tried, and the client notices nothing."""
        for reason, busy in (
            (CloseReason.SERVER_UNREACHABLE, False),
            (CloseReason.HANDSHAKE_FAILED, False),
            (CloseReason.REFUSED, True),
        ):
            around = MemorySurroundings(farm=MemoryFarm({"server-1": 9, "server-2": 9}))
            stage = Stage("connecting", around)
            around.attempts[0].fail(reason, "because", busy)
            self.assertEqual(stage.state, "connecting")
            around.attempts[1].admit()
            self.assertEqual(around.attempts[1].slot.server, "server-2")
            self.assertEqual(stage.client.told, ["welcome"])
            stage.inputs.end(IDLE)
            self.assertEqual(self.end_of(stage), CloseReason.IDLE)

    def test_none_left(self) -> None:
        """With no other game server left the session ends with what failed."""
        stage = Stage("connecting")
        stage.around.attempts[0].fail(CloseReason.HANDSHAKE_FAILED)
        self.assertEqual(self.end_of(stage), CloseReason.HANDSHAKE_FAILED)

    def test_refused(self) -> None:
        """A game server that refuses the player ends the session, with its message; no other is tried."""
        around = MemorySurroundings(farm=MemoryFarm({"server-1": 9, "server-2": 9}))
        stage = Stage("connecting", around)
        around.attempts[0].fail(CloseReason.REFUSED, "Not you.")
        self.assertEqual(stage.client.told, ["refused"])
        self.assertEqual(around.farm.released, [])
        self.assertEqual(self.end_of(stage), CloseReason.REFUSED)
        self.assertEqual(stage.record.message, "Not you.")
        self.assertEqual(len(around.attempts), 1)

    def test_kicked_with_ban(self) -> None:
        """A ban that comes with a kick is passed to the farm, before the slot goes back."""
        stage = Stage("relaying")
        stage.around.relays[0].end(Outcome(CloseReason.KICKED, "Cheater.", 60.0))
        bans = stage.around.farm.bans
        self.assertEqual(bans, [("ann", 60.0, "Cheater.", "game server server-1")])
        self.assertEqual(self.end_of(stage), CloseReason.KICKED)

    def test_reason_of_a_ban_is_bounded(self) -> None:
        """What a game server says of a ban is kept only as far as a person reads it."""
        stage = Stage("relaying")
        stage.around.relays[0].end(Outcome(CloseReason.KICKED, "x" * 100_000, 60.0))
        self.assertEqual(stage.around.farm.bans[0][2], "x" * 200)
        self.assertEqual(self.end_of(stage), CloseReason.KICKED)


class Breaking(MemorySurroundings):
    """Surroundings in which something is broken."""

    broken = ""

    def attempt(self, slot: Slot, introduction: Introduction) -> gameproxy.testing.Attempt:
        if self.broken == "attempt":
            raise ZeroDivisionError
        return super().attempt(slot, introduction)

    def relay(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        if self.broken == "relay":
            raise ZeroDivisionError
        return super().relay(client, server, on_end)


class BreakingTest(SynchronousTestCase):
    """What raises where it must not: the session ends, with ``internal``, and leaves nothing behind."""

    def test_attempt(self) -> None:
        """No attempt can be made."""
        around = Breaking()
        around.broken = "attempt"
        stage = Stage("relaying", around)
        self.assertEqual(stage.client.told, ["internal"])
        stage.disconnect()
        self.assertEqual(stage.record.reason, CloseReason.INTERNAL)
        self.assertEqual(around.farm.released, [stage.session.id])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_relay(self) -> None:
        """No relay can be made: both connections are ended."""
        around = Breaking()
        around.broken = "relay"
        stage = Stage("relaying", around)
        self.assertEqual(stage.client.told, ["welcome", "end"])
        self.assertTrue(around.attempts[0].abandoned)
        stage.disconnect()
        self.assertEqual(stage.record.reason, CloseReason.INTERNAL)
        self.assertEqual(stage.record.traffic, Traffic())
        self.assertEqual(around.farm.released, [stage.session.id])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_end_of_attempt_that_never_was(self) -> None:
        """A session that must end at the very moment has nothing to abandon."""
        around = Breaking()
        around.broken = "attempt"
        around.farm.hold = True
        client = around.connect()
        client.session.inputs.authenticate(ANN)
        slots = around.farm.serve

        # Both happen before the machine comes to look at the failed attempt.
        def told_to_end(waiting: object) -> None:
            client.session.inputs.end(IDLE)

        client.connecting = lambda: told_to_end(None)  # type: ignore[method-assign]  # ends meanwhile
        client.session._tell_waiting(Waiting("queued", 1))
        slots()
        client.disconnect()
        self.assertEqual([record.reason for record in around.records], [CloseReason.IDLE])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_farm(self) -> None:
        """A farm that cannot take back, or ban, does not keep the session from its end."""

        def raises(*arguments: object) -> None:
            raise ZeroDivisionError

        stage = Stage("relaying")
        stage.around.farm.release = raises  # type: ignore[method-assign]  # broken so
        stage.around.farm.ban = raises  # type: ignore[method-assign]  # broken so
        stage.around.relays[0].end(Outcome(CloseReason.KICKED, "Cheater.", 60.0))
        stage.disconnect()
        self.assertEqual(stage.record.reason, CloseReason.KICKED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_client(self) -> None:
        """A client that cannot be told why is let go all the same."""

        def raises(*arguments: object) -> None:
            raise ZeroDivisionError

        stage = Stage("selecting")
        stage.client.refuse = raises  # type: ignore[method-assign]  # broken so
        stage.inputs.end(IDLE)
        self.assertEqual(stage.client.told, ["end"])
        stage.disconnect()
        self.assertEqual(stage.record.reason, CloseReason.IDLE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_checker_that_gives_up(self) -> None:
        """A checker whose own work was cancelled ends the session, which would wait for it for ever."""
        stage = Stage("authenticating")
        stage.around.authenticator.refusal = CancelledError()
        stage.around.authenticator.answer()
        self.assertEqual(stage.client.told, ["internal"])
        stage.disconnect()
        self.assertEqual(stage.record.reason, CloseReason.INTERNAL)

    def test_stand_ins(self) -> None:
        """Of what could not be made nothing can be handed over or started."""
        attempt = gameproxy.stand_ins.NoAttempt(Failure(ZeroDivisionError()))
        self.failureResultOf(attempt.admitted, ZeroDivisionError)
        self.assertRaises(NotImplementedError, attempt.hand_over)
        client = MemoryClient()
        relay = gameproxy.stand_ins.NoRelay(client, attempt, lambda outcome: None)
        self.assertRaises(NotImplementedError, relay.start)


class FakesTest(SynchronousTestCase):
    """gameproxy.testing itself"""

    def test_example(self) -> None:
        """The example in its documentation runs."""
        self.assertEqual(doctest.testmod(gameproxy.testing).failed, 0)

    def test_seeded_entropy(self) -> None:
        """The same seed gives the same bytes, in whatever pieces; another seed gives others."""
        one, same, other = (gameproxy.testing.seeded_entropy(seed) for seed in ("a", "a", "b"))
        whole = one(100)
        self.assertEqual(whole, same(1) + same(60) + same(39))
        self.assertNotEqual(whole, other(100))
        self.assertNotEqual(whole[:32], whole[32:64])
