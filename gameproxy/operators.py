"""What operators may ask of a running proxy, and what it answers (docs/farm, "The control socket")."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gameproxy.admission import Admission
from gameproxy.farm import GameFarm, StoreError, StoreUnavailable
from gameproxy.metrics import by_relay, by_state
from gameproxy.reasons import CloseReason, Refusal


class Operators:
    """Answers them.

    :param sessions: those of this proxy.
    :param relay: what it says of its relays.
    """

    def __init__(
        self, sessions: Admission, farm: GameFarm, relay: Callable[[], Mapping[str, str]]
    ) -> None:
        self._sessions = sessions
        self._farm = farm
        self._relay = relay

    def answer(self, request: Mapping[str, object]) -> Deferred[dict[str, object]]:
        """Answer ``{"ask": "status"}``, ``{"ask": "start", "game"}`` or ``{"ask": "stop", "server"}``.

        :return: fires with the answer; fails with Refusal.
        :raises Refusal: it is none of these.
        """
        match request:
            case {"ask": "status"}:
                return succeed(self._status())
            case {"ask": "start", "game": str(game)}:
                return self._farm.start_server(game).addCallback(lambda server: {"server": server})
            case {"ask": "stop", "server": str(server)}:
                stopped = self._farm.stop_server(server)
                return stopped.addCallbacks(lambda done: {"stopped": done}, _unavailable)
        raise Refusal(CloseReason.PROTOCOL_ERROR, "This proxy does not know such a request.")

    def _status(self) -> dict[str, object]:
        return {
            "proxy": self._farm.proxy,
            "pid": os.getpid(),
            "sessions": {
                "total": len(self._sessions),
                "by_state": by_state(self._sessions),
                "by_relay": by_relay(self._sessions),
            },
            "relay": self._relay(),
            "limits": self._sessions.limits(),
        }


def _unavailable(failure: Failure) -> dict[str, object]:
    failure.trap(StoreError, StoreUnavailable)
    raise Refusal(CloseReason.INTERNAL, f"The farm's database cannot be used: {failure.value}")
