"""gameproxy.session: any order of inputs and results"""

from __future__ import annotations

from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.internet.task import Clock

from gameproxy.interfaces import Outcome
from gameproxy.messages import Auth
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.testing import MemoryAttempt, MemoryFarm, MemorySurroundings

REASONS = st.sampled_from(list(CloseReason))
FAILURES = st.sampled_from(
    [CloseReason.SERVER_UNREACHABLE, CloseReason.HANDSHAKE_FAILED, CloseReason.REFUSED]
)
WAITING = ("queued", "connecting", "welcome")


class SessionMachine(RuleBasedStateMachine):
    """One session, to which anything happens in any order: results come at once or late, connections go early or not
    at all, and what it was told once it is told again."""

    @initialize(
        auth_late=st.booleans(),
        slot_late=st.booleans(),
        admission_late=st.booleans(),
        servers=st.integers(1, 3),
    )
    def connect(self, auth_late: bool, slot_late: bool, admission_late: bool, servers: int) -> None:
        farm = MemoryFarm({f"server-{number}": 1 for number in range(servers)})
        self.around = MemorySurroundings(farm=farm)
        self.around.authenticator.hold = auth_late
        self.around.farm.hold = slot_late
        self.around.hold = admission_late
        self.client = self.around.connect()
        self.session = self.client.session
        self.failed: list[MemoryAttempt] = []

    # What others tell it

    @rule()
    def start(self) -> None:
        self.session.inputs.start()

    @rule(game=st.sampled_from([None, "chess", "ludo"]))
    def authenticate(self, game: str | None) -> None:
        self.session.inputs.authenticate(Auth("guest", name="ann", game=game))

    @rule(reason=REASONS)
    def end(self, reason: CloseReason) -> None:
        self.session.inputs.end(Refusal(reason))

    @rule()
    def client_ended(self) -> None:
        self.session.inputs.client_ended()

    @rule(seconds=st.sampled_from([0.5, 4.9, 5.1]))
    def time_passes(self, seconds: float) -> None:
        cast(Clock, self.around.clock).advance(seconds)

    # What comes of its own doing

    @rule(refusal=st.none() | REASONS.map(Refusal))
    def authenticator_answers(self, refusal: Refusal | None) -> None:
        self.around.authenticator.refusal = refusal
        self.around.authenticator.answer()

    @rule(refusal=st.none() | REASONS.map(Refusal))
    def farm_answers(self, refusal: Refusal | None) -> None:
        self.around.farm.refusal = refusal
        self.around.farm.serve()

    @property
    def open_attempts(self) -> list[MemoryAttempt]:
        return [attempt for attempt in self.around.attempts if not attempt.admitted.called]

    @precondition(lambda self: self.open_attempts)
    @rule()
    def game_server_admits(self) -> None:
        self.open_attempts[0].admit()

    @precondition(lambda self: self.open_attempts)
    @rule(reason=FAILURES, busy=st.booleans())
    def game_server_does_not_admit(self, reason: CloseReason, busy: bool) -> None:
        attempt = self.open_attempts[0]
        self.failed.append(attempt)
        attempt.fail(reason, "because", busy)

    @precondition(lambda self: self.around.relays)
    @rule(reason=REASONS, ban_for=st.none() | st.just(60.0))
    def relay_ends(self, reason: CloseReason, ban_for: float | None) -> None:
        self.around.relays[0].end(Outcome(reason, "", ban_for))

    # Connections go only when they are being ended or the session has been told that they have ended.

    @precondition(lambda self: self.session.state == "closing" and not self.client.gone.called)
    @rule()
    def client_goes(self) -> None:
        self.client.disconnect()

    @precondition(lambda self: self.session.state == "closing")
    @rule()
    def game_server_goes(self) -> None:
        for attempt in self.around.attempts:
            if not attempt.gone.called:
                attempt.disconnect()

    # What must hold

    def told_reason(self) -> CloseReason | None:
        """Why it ends, as those who had to be told were told first."""
        if self.around.relays:
            outcome = self.around.relays[0].outcome
            return outcome.reason if outcome else None
        endings = [word for word in self.client.told if word not in WAITING]
        if not endings:
            return None
        return CloseReason.CLIENT_LOST if endings[0] == "end" else CloseReason(endings[0])

    @invariant()
    def one_end(self) -> None:
        """It is over when both connections are gone, and then once; told once, and released once if it has to be."""
        if not hasattr(self, "session"):
            return
        around = self.around
        released = around.farm.released
        assert len(around.records) == (self.session.state == "closed")
        assert len(released) <= 1
        assert len(around.relays) <= 1
        endings = [word for word in self.client.told if word not in WAITING]
        ended = self.session.state in ("closing", "closed")
        assert len(endings) == (ended and not around.relays)
        assert (self.told_reason() is not None) == ended
        if released and around.attempts:
            last = around.attempts[-1]
            assert last in self.failed or last.gone.called, "a slot went back too early"
        if around.records:
            assert around.records[0].reason is self.told_reason()
            assert self.client.gone.called

    @invariant()
    def nothing_under_way(self) -> None:
        """Of a session that ends no delayed call is left, no attempt is waited for, and no slot is kept."""
        if not hasattr(self, "session"):
            return
        if self.session.state in ("relaying", "closing", "closed"):
            assert cast(Clock, self.around.clock).getDelayedCalls() == []
        if self.session.state in ("closing", "closed"):
            assert self.open_attempts == []
        if self.session.state == "closed":
            assert self.around.farm.slots == {}

    def teardown(self) -> None:
        """From wherever it has come to, it comes to an end."""
        if not hasattr(self, "session"):
            return
        self.session.inputs.end(Refusal(CloseReason.DRAINING))
        self.game_server_goes()
        if not self.client.gone.called:
            self.client_goes()
        assert self.session.state == "closed"
        self.one_end()
        self.nothing_under_way()


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25)
SessionTest = SessionMachine.TestCase
