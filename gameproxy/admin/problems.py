"""Why a request is not done, for programs: problem details in JSON (RFC 9457), with a sentence for people."""

from __future__ import annotations

from typing import Final

from twisted.python.failure import Failure
from twisted.web.http import RESPONSES

from gameproxy.admin.http import Answer
from gameproxy.farm.orders import OrderFailed
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.strict_json import encode_object

_STATUS: Final = {CloseReason.UNKNOWN_GAME: 404, CloseReason.NO_SERVER: 409}
"""The statuses of what the farm refuses; all else is trouble of its own."""
_SENTENCES: Final = {
    CloseReason.UNKNOWN_GAME: "This proxy starts no game servers of this game.",
    CloseReason.NO_SERVER: "There are max_servers game servers of this game already.",
}


class Problem(Exception):
    """A request cannot be done.

    :param status: of HTTP.
    :param detail: a sentence for people.
    :param headers: more headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def answer(self) -> Answer:
        """What is answered."""
        title = RESPONSES.get(self.status, b"").decode("ascii")
        document: dict[str, object] = {
            "title": title,
            "status": self.status,
            "detail": self.detail,
        }
        body = encode_object(document) + b"\n"
        return Answer(self.status, body, "application/problem+json", self.headers)


def problem_of(failure: Failure) -> Answer:
    """The answer when an order was not done; fails with what is none of its reasons."""
    error = failure.value
    if isinstance(error, OrderFailed):
        error = Problem(404 if error.missing else 409, _sentence(str(error)))
    elif isinstance(error, Refusal):
        detail = _SENTENCES.get(error.reason, error.message)
        error = Problem(_STATUS.get(error.reason, 503), _sentence(detail))
    if not isinstance(error, Problem):
        failure.raiseException()
    return error.answer()


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
