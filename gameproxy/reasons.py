"""Why a session ended: the codes that clients, game servers and operators see.

Every session ends with exactly one :class:`CloseReason`. A :class:`Refusal` carries one from where it
is found out to the session that ends with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import isfinite
from typing import Final


class CloseReason(StrEnum):
    """The codes of ERROR, CLOSE, the logs and the metrics (docs/protocol, "Close reasons")."""

    LEFT = "left"
    CLIENT_LOST = "client_lost"
    SERVER_LOST = "server_lost"
    PROTOCOL_ERROR = "protocol_error"
    UNSUPPORTED_VERSION = "unsupported_version"
    AUTH_TIMEOUT = "auth_timeout"
    AUTH_FAILED = "auth_failed"
    UNKNOWN_GAME = "unknown_game"
    BANNED = "banned"
    THROTTLED = "throttled"
    LIMIT_EXCEEDED = "limit_exceeded"
    PROXY_FULL = "proxy_full"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_SERVER = "no_server"
    START_FAILED = "start_failed"
    SERVER_UNREACHABLE = "server_unreachable"
    HANDSHAKE_FAILED = "handshake_failed"
    REFUSED = "refused"
    ALREADY_CONNECTED = "already_connected"
    REPLACED = "replaced"
    IDLE = "idle"
    KICKED = "kicked"
    DRAINING = "draining"
    INTERNAL = "internal"


ADVICE: Final[Mapping[CloseReason, str]] = {
    CloseReason.LEFT: "The other side left. Connect again to go on.",
    CloseReason.CLIENT_LOST: "The connection to the client was lost. Let go of what it held.",
    CloseReason.SERVER_LOST: "The connection to the game server was lost. Connect again.",
    CloseReason.PROTOCOL_ERROR: "What was sent is not of this protocol. Update the program.",
    CloseReason.UNSUPPORTED_VERSION: "This version of the protocol is not spoken here. Update the program.",
    CloseReason.AUTH_TIMEOUT: "No complete AUTH came in time. Connect again.",
    CloseReason.AUTH_FAILED: "The credentials were not accepted. Sign in again.",
    CloseReason.UNKNOWN_GAME: "There is no such game here. Name one of this proxy's games.",
    CloseReason.BANNED: "You are banned here. Ask the operator.",
    CloseReason.THROTTLED: "Too many attempts. Wait a little, then try again.",
    CloseReason.LIMIT_EXCEEDED: "A limit was exceeded. Send less, or connect less often.",
    CloseReason.PROXY_FULL: "No more sessions fit here. Try again later.",
    CloseReason.QUEUE_FULL: "Too many are waiting already. Try again later.",
    CloseReason.QUEUE_TIMEOUT: "No place became free in time. Try again later.",
    CloseReason.NO_SERVER: "There is no game server for this game. Try again later.",
    CloseReason.START_FAILED: "The game server could not be started. Try again later.",
    CloseReason.SERVER_UNREACHABLE: "The game server could not be reached. Try again later.",
    CloseReason.HANDSHAKE_FAILED: "The game server did not prove itself. Try again later.",
    CloseReason.REFUSED: "The game server did not let you in. Ask the operator.",
    CloseReason.ALREADY_CONNECTED: "You are connected already. End that session first, or try again if it was cut off.",
    CloseReason.REPLACED: "You connected from somewhere else. Go on there.",
    CloseReason.IDLE: "Nothing was sent for too long. Connect again.",
    CloseReason.KICKED: "Your session was ended. Ask the operator.",
    CloseReason.DRAINING: "The server is about to stop. Connect again.",
    CloseReason.INTERNAL: "Something failed here. Try again later.",
}
"""What to tell a person when nothing better is known: what to do, never a secret."""


class Refusal(Exception):
    """A session cannot go on, and this is why.

    :param reason: the one code that the session ends with.
    :param message: for people; the reason's :data:`ADVICE` when ``None``. It is shown to the client: no secrets.
    :param retry_after: seconds after which to try again makes sense, or ``None``.
    :param detail: what only the operator is told, in the log.
    """

    def __init__(
        self,
        reason: CloseReason,
        message: str | None = None,
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = ADVICE[reason] if message is None else message
        self.retry_after = (
            retry_after if retry_after is not None and isfinite(retry_after) else None
        )
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
