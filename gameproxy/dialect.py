"""Dialects: what the proxy's own frames look like on the wire, and when there are any.

A session does not know its dialect; it says what is to be told, and the dialect knows in which bytes, if any.

========== ================== ======================= ==================================
dialect    before WELCOME     after WELCOME           how a session begins
========== ================== ======================= ==================================
native     the proxy's frames types below 0x10 are    with AUTH
                              the proxy's
preamble   the proxy's frames the game's alone        with AUTH
plain      the game's alone   the game's alone        with the game's own first frame
========== ================== ======================= ==================================
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Final

from gameproxy.framing import FrameFormat, Verdict
from gameproxy.interfaces import Waiting
from gameproxy.messages import (
    OWN_FRAME_MAX,
    FrameType,
    Notice,
    Welcome,
    encode_error,
    encode_status,
)
from gameproxy.reasons import CloseReason, Refusal

Verdicts = Mapping[int, Verdict] | None
"""What to do with frames whose first byte is below 0x10; ``None``: no type is looked at."""

_NOBODY_SPEAKS_YET: Final[Mapping[int, Verdict]] = {}
_CLIENT_MAY: Final[Mapping[int, Verdict]] = {FrameType.CLOSE: Verdict.COLLECT}
_SERVER_MAY: Final[Mapping[int, Verdict]] = {
    FrameType.SETTINGS: Verdict.PASS,
    FrameType.CLOSE: Verdict.COLLECT,
    FrameType.KICK: Verdict.COLLECT,
}


class Dialect:
    """One dialect over one frame format. All its methods give whole frames, or nothing where it has no words.

    :param name: ``native``, ``preamble`` or ``plain``.
    :ivar format: of its frames, and the game's.
    :ivar begins_with_auth: whether a session begins with AUTH, else with the game's first frame.
    :ivar early_verdicts: what a client may send between its first frame and WELCOME.
    :ivar client_verdicts: what a client may send while relaying.
    :ivar server_verdicts: what a game server may send while relaying.
    """

    def __init__(self, name: str, format: FrameFormat) -> None:
        if name not in ("native", "preamble", "plain"):
            raise ValueError(f"there is no dialect {name!r}")
        self.format = format
        self._relays_own_frames = name == "native"
        self._own_frame_max = min(OWN_FRAME_MAX, format.largest)
        self.begins_with_auth = name != "plain"
        self.early_verdicts: Verdicts = _NOBODY_SPEAKS_YET if self.begins_with_auth else None
        self.client_verdicts: Verdicts = _CLIENT_MAY if self._relays_own_frames else None
        self.server_verdicts: Verdicts = _SERVER_MAY if self._relays_own_frames else None

    def waiting(self, waiting: Waiting) -> bytes:
        """STATUS for a client that waits in the queue."""
        if waiting.state == "starting":
            message = f"A game server is being started for you; your place is {waiting.position}."
        else:
            message = f"There is no free place yet; your place in the queue is {waiting.position}."
        return self._before_welcome(encode_status(waiting.state, waiting.position, message))

    def connecting(self) -> bytes:
        """STATUS for a client that has waited and now has a slot."""
        return self._before_welcome(encode_status("connecting", None, "Connecting you."))

    def welcome(self, welcome: Welcome) -> bytes:
        """WELCOME."""
        return self._before_welcome(welcome.encode())

    def error(self, refusal: Refusal) -> bytes:
        """ERROR, which ends a session before WELCOME. A message that is too long is cut."""
        return self._before_welcome(
            self._fitting(
                refusal.message,
                lambda message: encode_error(refusal.reason, message, refusal.retry_after),
            )
        )

    def close(self, reason: CloseReason, message: str) -> bytes:
        """CLOSE, which ends a session after WELCOME. A message that is too long is cut."""
        return self.close_as_sent(
            self._fitting(message, lambda message: Notice(reason, message).encode(FrameType.CLOSE))
        )

    def close_as_sent(self, body: bytes) -> bytes:
        """The body of a CLOSE passed on."""
        return self.format.encode(body) if self._relays_own_frames else b""

    def _before_welcome(self, body: bytes) -> bytes:
        return self.format.encode(body) if self.begins_with_auth else b""

    def _fitting(self, message: str, encode: Callable[[str], bytes]) -> bytes:
        """The body with as much of a message as has room; others wrote it, so it may have any length."""
        body = encode(message)
        limit = self._own_frame_max
        if len(body) <= limit:
            return body
        # No more characters than bytes fit, and fewer the more are escaped: which number does is searched for.
        lengths = range(min(len(message), limit))
        too_long = bisect_right(lengths, limit, key=lambda length: len(encode(message[:length])))
        return encode(message[: too_long - 1])
