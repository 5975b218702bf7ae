"""Public fakes: test what you build around gameproxy without network, threads, processes or waiting.

Everything that surrounds a session exists here in memory, under a clock that the test turns. By itself a fake does what
goes well, at once; a test says when something is to be late (``hold``) or to go wrong::

    >>> around = MemorySurroundings()
    >>> client = around.connect()
    >>> client.session.inputs.authenticate(Auth("guest", name="ann"))
    >>> client.told
    ['welcome']
    >>> client.session.inputs.end(Refusal(CloseReason.IDLE))
    >>> around.relays[0].closed
    <CloseReason.IDLE: 'idle'>
    >>> client.disconnect()
    >>> around.attempts[0].disconnect()
    >>> [str(record.reason) for record in around.records], around.farm.released == [client.session.id]
    (['idle'], True)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from gameproxy.framing import FORMATS, FrameScanner
from gameproxy.interfaces import (
    Attempt,
    AttemptFailed,
    Entropy,
    Identity,
    Introduction,
    Outcome,
    Peer,
    Relay,
    SessionRecord,
    Slot,
    SlotRequest,
    Traffic,
    Waiting,
)
from gameproxy.messages import Auth, Welcome
from gameproxy.phases import Phase
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.session import Session
from gameproxy.wire import Side, Wire

PEER = Peer("192.0.2.1", 40000, False)
"""A client's address (RFC 5737: no real one)."""


def seeded_entropy(seed: str = "") -> Entropy:
    """Bytes that look random and are the same for the same seed, however they are asked for in pieces of which size."""

    def stream() -> Iterator[int]:
        block = 0
        while True:
            yield from hashlib.sha256(f"{seed} {block}".encode()).digest()
            block += 1

    bytes_left = stream()
    return lambda size: bytes(next(bytes_left) for _ in range(size))


class MemoryAuthenticator:
    """An :class:`~gameproxy.interfaces.Authenticator` that believes everybody.

    :ivar hold: when true, who asks waits for :meth:`answer`.
    :ivar refusal: when set, what who asks is refused with; any exception.
    :ivar asked: what was asked, in order.
    """

    def __init__(self) -> None:
        self.hold = False
        self.refusal: Exception | None = None
        self.asked: list[Auth] = []
        self._waiting: list[tuple[Auth, Deferred[Identity]]] = []

    def authenticate(self, request: Auth, peer: Peer) -> Deferred[Identity]:
        """Believe it, later or not at all."""
        self.asked.append(request)
        answer: Deferred[Identity] = Deferred()
        self._waiting.append((request, answer))
        if not self.hold:
            self.answer()
        return answer

    def answer(self) -> None:
        """Answer all who still wait: with :attr:`refusal`, or with who they say they are."""
        waiting, self._waiting = self._waiting, []
        for auth, answer in waiting:
            if answer.called:  # it was cancelled
                continue
            if self.refusal is not None:
                answer.errback(self.refusal)
            else:
                player = auth.name or auth.username or auth.ticket or "somebody"
                answer.callback(Identity(player, auth.mechanism))


class MemoryFarm:
    """A :class:`~gameproxy.interfaces.Farm` of game servers that are only names.

    :param servers: how many slots each has.
    :ivar hold: when true, whoever asks for a slot waits until :meth:`serve`.
    :ivar refusal: when set, what who asks is refused with; any exception.
    :ivar slots: who has a slot now, by session.
    :ivar relayed: the sessions that relay or have relayed.
    :ivar released: the sessions that gave back what they had, in order; twice if they did it twice.
    :ivar bans: player, seconds, reason and actor of each ban.
    """

    def __init__(self, servers: Mapping[str, int] | None = None) -> None:
        self.servers = dict(servers or {"server-1": 1000})
        self.hold = False
        self.refusal: Exception | None = None
        self.slots: dict[str, Slot] = {}
        self.relayed: list[str] = []
        self.released: list[str] = []
        self.bans: list[tuple[str, float, str, str]] = []
        self._waiting: dict[
            str, tuple[str, frozenset[str], Deferred[Slot], Callable[[Waiting], None]]
        ] = {}

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot on the first server that has one, or wait for one."""
        return self._ask(request.session, request.game, frozenset(), on_waiting)

    def try_another(
        self, slot: Slot, failure: AttemptFailed, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot on another server; with none left it fails with the failure's reason."""
        self.slots.pop(slot.session, None)
        if set(self.servers) <= {slot.server}:
            return fail(Refusal(failure.reason))
        return self._ask(slot.session, slot.game, frozenset({slot.server}), on_waiting)

    def relaying(self, slot: Slot) -> None:
        """Note it."""
        self.relayed.append(slot.session)

    def release(self, session: str) -> None:
        """Give back what the session has; whoever waits may get it."""
        self.released.append(session)
        self._waiting.pop(session, None)
        if self.slots.pop(session, None) is not None and not self.hold:
            self.serve()

    def ban(self, player: str, seconds: float, reason: str, actor: str) -> None:
        """Note it."""
        self.bans.append((player, seconds, reason, actor))

    def serve(self) -> None:
        """Give slots to those who wait, as far as there are any, and tell the others how they wait."""
        for session, (game, excluded, answer, _) in list(self._waiting.items()):
            server = self._free_server(excluded)
            if answer.called or self.refusal is not None or server is not None:
                del self._waiting[session]
            if answer.called:  # it was cancelled
                continue
            if self.refusal is not None:
                answer.errback(self.refusal)
            elif server is not None:
                slot = Slot(session, server, game, "192.0.2.2", 5000, bytes(32))
                self.slots[session] = slot
                answer.callback(slot)
        for place, (_, _, answer, on_waiting) in enumerate(list(self._waiting.values()), 1):
            if not answer.called:
                on_waiting(Waiting("queued", place))

    def _ask(
        self,
        session: str,
        game: str,
        excluded: frozenset[str],
        on_waiting: Callable[[Waiting], None],
    ) -> Deferred[Slot]:
        answer: Deferred[Slot] = Deferred()
        self._waiting[session] = (game, excluded, answer, on_waiting)
        if not self.hold:
            self.serve()
        return answer

    def _free_server(self, excluded: frozenset[str]) -> str | None:
        taken = [slot.server for slot in self.slots.values()]
        free = (
            server
            for server, capacity in self.servers.items()
            if server not in excluded and taken.count(server) < capacity
        )
        return next(free, None)


class MemoryClient:
    """A :class:`~gameproxy.interfaces.Client` that notes what it is told.

    :ivar session: its session.
    :ivar told: ``queued``, ``starting``, ``connecting``, ``welcome``, the code of a refusal, or ``end`` of the
        stream, in order.
    :ivar probes: how often it was to be found out whether it is there.
    :ivar fault: what was wrong with its connection.
    :ivar tls_version: by which version of TLS it came.
    """

    session: Session
    fault = ""
    tls_version = ""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.told: list[str] = []
        self.probes = 0

    def waiting(self, waiting: Waiting) -> None:
        """Note it."""
        self.told.append(waiting.state)

    def connecting(self) -> None:
        """Note it."""
        self.told.append("connecting")

    def welcome(self, welcome: Welcome) -> None:
        """Note it."""
        self.told.append("welcome")

    def refuse(self, refusal: Refusal) -> None:
        """Note it. The connection is there until :meth:`disconnect`."""
        self.told.append(refusal.reason.value)

    def leave(self) -> None:
        """Note it. The connection is there until :meth:`disconnect`."""
        self.told.append("end")

    def hand_over(self) -> Side:
        """Give up a connection on which nothing has come."""
        return _silent_side()

    def probe(self) -> None:
        """Note it."""
        self.probes += 1

    def disconnect(self) -> None:
        """The connection exists no more."""
        self.gone.callback(None)


class MemoryAttempt(Attempt):
    """An attempt at a game server; the test says what comes of it.

    :ivar abandoned: whether it was ended from our side.
    """

    def __init__(self, slot: Slot, introduction: Introduction) -> None:
        self.slot = slot
        self.introduction = introduction
        self.admitted: Deferred[Attempt] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.abandoned = False

    def admit(self) -> None:
        """The game server lets the session in."""
        self.admitted.callback(self)

    def fail(self, reason: CloseReason, message: str = "", busy: bool = False) -> None:
        """The game server does not let the session in."""
        self.admitted.errback(AttemptFailed(reason, message, busy))

    def abandon(self) -> None:
        """End it. The connection is there until :meth:`disconnect`."""
        self.abandoned = True
        if not self.admitted.called:
            self.admitted.cancel()

    def hand_over(self) -> Side:
        """Give up a connection on which nothing has come."""
        return _silent_side()

    def disconnect(self) -> None:
        """The connection exists no more."""
        self.gone.callback(None)


class MemoryRelay(Relay):
    """A relay that moves nothing.

    :ivar started: whether it was started.
    :ivar closed: the reason for which it was closed from our side, or ``None``.
    :ivar outcome: how it ended, or ``None``.
    """

    def __init__(self, on_end: Callable[[Outcome], None]) -> None:
        self._on_end = on_end
        self._traffic = Traffic()
        self.started = False
        self.closed: CloseReason | None = None
        self.outcome: Outcome | None = None

    @property
    def plane(self) -> str:
        return "transport"

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @traffic.setter
    def traffic(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def start(self) -> None:
        self.started = True

    def close(self, reason: CloseReason, message: str) -> None:
        if self.outcome is None:
            self.closed = reason
            self.end(Outcome(reason, message))

    def end(self, outcome: Outcome) -> None:
        """It ends by what its sides do; the second time changes nothing."""
        if self.outcome is None:
            self.outcome = outcome
            self._on_end(outcome)


class MemorySurroundings:
    """All that surrounds sessions (:class:`~gameproxy.interfaces.Surroundings`), in memory.

    :param clock: turned by the test.
    :ivar hold: when true, attempts wait for :meth:`MemoryAttempt.admit`.
    :ivar attempts: all that were begun; ``relays`` all that were made.
    :ivar identities: the sessions that have proved who they are.
    :ivar phases: what sessions have come through, with its seconds.
    :ivar records: of the sessions that are over, in order.
    """

    def __init__(
        self,
        clock: IReactorTime | None = None,
        farm: MemoryFarm | None = None,
        games: tuple[str, ...] = ("chess",),
        auth_timeout: float = 5.0,
    ) -> None:
        self.clock: IReactorTime = clock or Clock()
        self.authenticator = MemoryAuthenticator()
        self.farm = farm or MemoryFarm()
        self.games = games
        self.auth_timeout = auth_timeout
        self.hold = False
        self.attempts: list[MemoryAttempt] = []
        self.relays: list[MemoryRelay] = []
        self.identities: list[str] = []
        self.phases: list[tuple[Phase, float]] = []
        self.records: list[SessionRecord] = []
        self._entropy = seeded_entropy()

    def connect(self, peer: Peer = PEER) -> MemoryClient:
        """A client connects: it has a session, which waits for AUTH."""
        client = MemoryClient()
        client.session = Session(self._entropy(16).hex(), peer, client, self)
        client.session.inputs.start()
        return client

    def attempt(self, slot: Slot, introduction: Introduction) -> Attempt:
        """Begin an attempt."""
        attempt = MemoryAttempt(slot, introduction)
        self.attempts.append(attempt)
        if not self.hold:
            attempt.admit()
        return attempt

    def relay(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        """Make a relay."""
        relay = MemoryRelay(on_end)
        self.relays.append(relay)
        return relay

    def identified(self, session: str) -> None:
        """Note it."""
        self.identities.append(session)

    def passed(self, phase: Phase, seconds: float) -> None:
        """Note it."""
        self.phases.append((phase, seconds))

    def ended(self, record: SessionRecord) -> None:
        """Note it."""
        self.records.append(record)


def _silent_side() -> Side:
    wire = Wire(Clock(), lambda wire: None)
    wire.makeConnection(StringTransport())
    return Side(wire, FrameScanner(FORMATS["int32"], None), b"")
