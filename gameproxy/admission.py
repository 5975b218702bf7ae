"""Who may connect: how many sessions there are, and how many more there may be."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Final

from gameproxy.address_limits import AddressLimits
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.session import Session

REFUSED_MAX: Final = 256
"""Connections that are being told that there is no room; more are closed without a word."""
OTHER_DESCRIPTORS: Final = 256
"""Descriptors for all but sessions: the database, logs, listeners, game servers being started."""
FULL_RETRY_AFTER: Final = 5.0
"""Seconds after which to try again when there is no room."""


class Admission:
    """The sessions of a proxy, in the order in which they came.

    :param max_sessions: most sessions at once.
    :param max_unauthenticated: most of them that have not proved yet who they are.
    :param addresses: what clients of one address may do; ``None``: all.
    """

    def __init__(
        self, max_sessions: int, max_unauthenticated: int, addresses: AddressLimits | None = None
    ) -> None:
        self._max_sessions = max_sessions
        self._max_unauthenticated = max_unauthenticated
        self._sessions: dict[str, Session] = {}
        self._unauthenticated: dict[str, None] = {}
        self._refused: dict[str, None] = {}
        self._expected = 0
        self._addresses = addresses

    def reconfigure(self, max_sessions: int, max_unauthenticated: int) -> None:
        """Go on with other bounds; who is there may stay."""
        self._max_sessions = max_sessions
        self._max_unauthenticated = max_unauthenticated

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def let_in(self) -> list[Session]:
        """Those that are not being told that they must end at once."""
        return [one for id, one in self._sessions.items() if id not in self._refused]

    def get(self, session: str) -> Session | None:
        """The session with this id, if it is not over."""
        return self._sessions.get(session)

    def end(self, session: str, refusal: Refusal) -> None:
        """The session with this id must end, if it is not over."""
        found = self._sessions.get(session)
        if found is not None:
            found.inputs.end(refusal)

    def doubt(self, session: str) -> None:
        """Somebody else is kept out by the session with this id: see whether its client is still there."""
        found = self._sessions.get(session)
        if found is not None:
            found.doubt()

    def has_room(self) -> bool:
        """Whether another connection can be taken, if only to say that there is no room."""
        return not self._is_full() or len(self._refused) + self._expected < REFUSED_MAX

    def expect(self) -> bool:
        """Take room for a connection that is no session yet, as it has not said where it comes from.

        :return: whether there was room.
        """
        if not self.has_room():
            return False
        self._expected += 1
        return True

    def expect_no_more(self) -> None:
        """Such a connection became a session, or is gone."""
        self._expected -= 1

    def enter(self, session: Session) -> Refusal | None:
        """Count a session that has just connected.

        :return: why it must end at once, or ``None``.
        """
        refusal = self._refusal(session.peer.address)
        self._sessions[session.id] = session
        if refusal is not None:
            self._refused[session.id] = None
            return refusal
        self._unauthenticated[session.id] = None
        if self._addresses is not None:
            self._addresses.enter(session)
        return None

    @property
    def can_tell(self) -> bool:
        """Whether those who are being refused are not too many to be told why."""
        return len(self._refused) <= REFUSED_MAX

    def limits(self) -> dict[str, int]:
        """The limits, how many sessions count for that of the unauthenticated, and how often others were broken."""
        counts = {} if self._addresses is None else self._addresses.counts.numbers()
        return counts | {
            "max_sessions": self._max_sessions,
            "max_unauthenticated": self._max_unauthenticated,
            "unauthenticated": len(self._unauthenticated),
        }

    def identified(self, session: str) -> None:
        """A session has proved who it is."""
        self._unauthenticated.pop(session, None)

    def leave(self, session: str) -> None:
        """A session is over."""
        left = self._sessions.pop(session, None)
        if left is not None and self._addresses is not None:
            self._addresses.leave(left)
        self._unauthenticated.pop(session, None)
        self._refused.pop(session, None)

    def _refusal(self, address: str) -> Refusal | None:
        if self._is_full():
            return Refusal(CloseReason.PROXY_FULL, retry_after=FULL_RETRY_AFTER)
        return None if self._addresses is None else self._addresses.refusal(address)

    def _is_full(self) -> bool:
        return (
            len(self._sessions) - len(self._refused) + self._expected >= self._max_sessions
            or len(self._unauthenticated) + self._expected >= self._max_unauthenticated
        )


class TooFewDescriptors(Exception):
    """The system does not give this process as many file descriptors as it needs; the text says what to do."""


def ensure_descriptors(max_sessions: int) -> None:
    """Raise this process's limit of file descriptors as far as so many sessions need, with two each.

    :raises TooFewDescriptors: the system does not allow that.
    """
    needed = 2 * (max_sessions + REFUSED_MAX) + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewDescriptors(
            f"{max_sessions} sessions need {needed} file descriptors, and the limit is {hard}: raise it "
            "(ulimit -n, LimitNOFILE=) or allow fewer sessions"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
