"""The small interfaces through which the rooms reach each other; service.py joins them.

Nothing here does anything: these are the words in which a session speaks with what surrounds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)

from gameproxy.messages import Auth, Welcome
from gameproxy.phases import Phase
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.wire import Side


class Reactor(
    IReactorTCP, IReactorTime, IReactorThreads, IReactorProcess, IReactorPluggableNameResolver
):
    """What the proxy needs of a reactor: connections, time, threads, processes, and addresses of host names."""


Entropy = Callable[[int], bytes]
"""Gives that many random bytes: ``os.urandom`` in production, a seeded stream in a simulation."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a client comes from.

    :param address: its IP alone, without port; ``::ffff:a.b.c.d`` already written as ``a.b.c.d``.
    :param port: its TCP port.
    :param secure: whether the connection to it is encrypted (TLS).
    :param local_address: the IP at which it reached the proxy.
    :param local_port: the TCP port at which it reached the proxy.
    """

    address: str
    port: int
    secure: bool
    local_address: str = ""
    local_port: int = 0


@dataclass(frozen=True, slots=True)
class UsedTicket:
    """A ticket that is good once.

    :param jti: its unique id.
    :param expires_at: seconds since the epoch until which ``jti`` must be remembered.
    """

    jti: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client has proved to be.

    :param player: the player's name (NFC, 1 to 64 characters; of guests: ``guest:`` and such a name).
    :param mechanism: ``ticket``, ``password`` or ``guest``.
    :param game: the game that the credentials are bound to, or ``None``.
    :param ticket: to be spent when a slot is taken, or ``None``.
    """

    player: str
    mechanism: str
    game: str | None = None
    ticket: UsedTicket | None = None

    @property
    def is_guest(self) -> bool:
        """Guests' names need not be unique; duplicates do not concern them."""
        return self.mechanism == "guest"


class Authenticator(Protocol):
    """Finds out who a client is."""

    def authenticate(self, request: Auth, peer: Peer) -> Deferred[Identity]:
        """Check the credentials of an AUTH.

        :return: fires with the identity; fails with :class:`~gameproxy.reasons.Refusal`. May be cancelled.
        """
        ...


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """What a session asks the farm for.

    :param session: the session's id, unique over all proxies.
    :param game: the name of a game of this farm.
    """

    session: str
    identity: Identity
    game: str
    peer: Peer


@dataclass(frozen=True, slots=True)
class Slot:
    """A session's place on a game server.

    :param server: the game server's id.
    :param host: where it listens: an IP or a host name.
    :param port: its TCP port.
    :param key: its 32-byte key for the handshake.
    """

    session: str
    server: str
    game: str
    host: str
    port: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """That a session waits for a slot, and how.

    :param state: ``starting`` while a start of its game is under way, else ``queued``.
    :param position: 1 is next.
    """

    state: str
    position: int


class AttemptFailed(Exception):
    """A slot could not be used: its game server did not let the session in.

    :param reason: what the session ends with when nothing else is left to try: ``SERVER_UNREACHABLE`` (the dial
        failed), ``HANDSHAKE_FAILED``, or ``REFUSED``.
    :param busy: the game server answered ``full`` or ``draining``: it is well, but has no room.
    :param message: of REFUSED, for the client; else for the log.
    """

    def __init__(self, reason: CloseReason, message: str, busy: bool = False) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.busy = busy


class Farm(Protocol):
    """Where slots come from. Calls for one session take effect in the order in which they were made."""

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot, or wait in the queue for one.

        :param on_waiting: called when the session begins to wait and whenever its position or state changes.
        :return: fires with the slot; fails with :class:`~gameproxy.reasons.Refusal` (``queue_full``,
            ``queue_timeout``, ``no_server``, ``start_failed``, ``already_connected``, ``banned``, ``auth_failed``
            for a ticket spent before, ``internal``). When cancelled it no longer calls back; what it had already
            taken goes with :meth:`release`.
        """
        ...

    def try_another(
        self, slot: Slot, failure: AttemptFailed, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Give back a slot whose game server did not let the session in, and take another as :meth:`acquire` does.

        :return: as of :meth:`acquire`; fails with the failure's own reason when nothing is left to try.
        """
        ...

    def relaying(self, slot: Slot) -> None:
        """The session relays from now on: its slot is no longer reserved but connected."""
        ...

    def release(self, session: str) -> None:
        """The session is over: whatever it holds or waits for is given back. Doing it twice changes nothing."""
        ...

    def ban(self, player: str, seconds: float, reason: str, actor: str) -> None:
        """Ban a player for that many seconds from now, on all proxies of the farm."""
        ...


class Client(Protocol):
    """The client, as its session sees it.

    :ivar gone: fires when the connection exists no more.
    """

    gone: Deferred[None]

    @property
    def fault(self) -> str:
        """What was wrong with the connection when it broke, for operators; else empty."""

    @property
    def tls_version(self) -> str:
        """By which version of TLS it came, as ``TLSv1.3``; empty: without."""

    def waiting(self, waiting: Waiting) -> None:
        """Tell how it waits."""
        ...

    def connecting(self) -> None:
        """Tell that it waits no more and is being connected."""
        ...

    def welcome(self, welcome: Welcome) -> None:
        """Tell that it is in."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Tell why it is not let in, and end the connection."""
        ...

    def leave(self) -> None:
        """End the connection to a client that has ended its side."""
        ...

    def hand_over(self) -> Side:
        """Give the connection up to a relay, with what the client has sent early."""
        ...

    def probe(self) -> None:
        """Find out now whether it is still there; at any time. If it is not, its stream ends."""
        ...


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a game server is told of a session.

    :param properties: what the client sent for the game server with AUTH: the text of a JSON object.
    :param tls_version: by which version of TLS the client came, as ``TLSv1.3``; empty: without.
    """

    session: str
    player: str
    peer: Peer
    properties: str
    tls_version: str = ""


class Attempt(ABC):
    """One attempt to be admitted by a game server, and the connection that comes of it.

    :ivar admitted: fires with the attempt itself; fails with :class:`AttemptFailed`, and then has ended itself.
    :ivar gone: fires when no connection of it exists any more, or ever will.
    """

    admitted: Deferred[Attempt]
    gone: Deferred[None]

    @abstractmethod
    def abandon(self) -> None:
        """End it, however far it has come. If :attr:`admitted` has not fired, it is cancelled."""

    @abstractmethod
    def hand_over(self) -> Side:
        """Give the connection up to a relay, with what the game server has sent since it admitted the session."""


PLANES: Final = ("transport", "epoll", "sockmap")
"""How frames may be moved: by Twisted's transports, past them, or in the kernel."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has passed while relaying: whole frames, and bytes on the wire."""

    client_frames: int = 0
    client_bytes: int = 0
    server_frames: int = 0
    server_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.client_frames + other.client_frames,
            self.client_bytes + other.client_bytes,
            self.server_frames + other.server_frames,
            self.server_bytes + other.server_bytes,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a relay ended.

    :param message: for people.
    :param ban_for: seconds for which the game server wants the player banned, or ``None``.
    """

    reason: CloseReason
    message: str
    ban_for: float | None = None


class Relay(ABC):
    """What moves the frames of one session."""

    @property
    @abstractmethod
    def plane(self) -> str:
        """Which of ``transport``, ``epoll`` and ``sockmap`` they move on now."""

    @property
    @abstractmethod
    def traffic(self) -> Traffic:
        """What has passed so far."""

    @abstractmethod
    def start(self) -> None:
        """Begin, with what both sides have sent early."""

    @abstractmethod
    def close(self, reason: CloseReason, message: str) -> None:
        """End both sides, telling them why. Doing it twice changes nothing."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What is known of a session when it is over; ``None`` where it did not come so far.

    :param message: what people were told.
    :param detail: what only operators are told; may be empty. It may hold what came from outside.
    :param started_at: seconds since the epoch; so are ``ended_at`` and ``relayed_at``, when it began to relay.
    """

    session: str
    peer: Peer
    reason: CloseReason
    message: str
    detail: str
    player: str | None
    game: str | None
    server: str | None
    started_at: float
    ended_at: float
    traffic: Traffic
    relayed_at: float | None = None


class Surroundings(Protocol):
    """What all sessions of a proxy share."""

    @property
    def clock(self) -> IReactorTime:
        """What time it is, and calls later."""
        ...

    @property
    def authenticator(self) -> Authenticator:
        """Finds out who clients are."""
        ...

    @property
    def farm(self) -> Farm:
        """Where slots come from."""
        ...

    @property
    def games(self) -> tuple[str, ...]:
        """The names of the games here."""
        ...

    @property
    def auth_timeout(self) -> float:
        """Seconds until AUTH is complete, and then as many until it is known whose it is."""
        ...

    def attempt(self, slot: Slot, introduction: Introduction) -> Attempt:
        """Begin to connect a session to the game server of its slot."""
        ...

    def relay(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        """Make the relay between a client and the game server that has admitted it.

        :param on_end: called once, when both connections are being ended.
        """
        ...

    def identified(self, session: str) -> None:
        """A session has proved who it is."""
        ...

    def passed(self, phase: Phase, seconds: float) -> None:
        """A session has come through a part of its way, in so many seconds."""
        ...

    def ended(self, record: SessionRecord) -> None:
        """A session is over, with nothing left of it. Called once for each."""
        ...
