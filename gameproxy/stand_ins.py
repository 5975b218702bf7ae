"""What a session has in place of what could not be made, so that it ends as any other does.

A state of the session machine must get its data, or the machine is stuck: an exception may not leave it without.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from gameproxy.interfaces import Attempt, Client, Outcome, Relay, Traffic
from gameproxy.reasons import CloseReason
from gameproxy.wire import Side


class NoAttempt(Attempt):
    """An attempt that failed before it began.

    :param failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        self.admitted: Deferred[Attempt] = fail(failure)
        self.gone: Deferred[None] = succeed(None)

    def abandon(self) -> None:
        """There is nothing to end."""

    def hand_over(self) -> Side:
        raise NotImplementedError("there is no connection")


class NoRelay(Relay):
    """A relay that could not be made or started. All that can be done with it is to end both sides."""

    def __init__(self, client: Client, attempt: Attempt, on_end: Callable[[Outcome], None]) -> None:
        self._client = client
        self._attempt = attempt
        self._on_end = on_end

    @property
    def plane(self) -> str:
        return "transport"

    @property
    def traffic(self) -> Traffic:
        return Traffic()

    def start(self) -> None:
        raise NotImplementedError("there is no relay")

    def close(self, reason: CloseReason, message: str) -> None:
        self._client.leave()
        self._attempt.abandon()
        self._on_end(Outcome(reason, message))
