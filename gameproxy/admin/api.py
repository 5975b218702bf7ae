"""``/v1``: what operators' commands do, for programs (docs/operating, "The admin API"; openapi.json).

Here is only what HTTP has to do with it: who may ask, what a path and a body mean, and which status says what.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from gameproxy.admin.http import BODY_MAX, PATIENCE, Answer, Asked
from gameproxy.admin.problems import Problem, problem_of
from gameproxy.config_problems import problems_in
from gameproxy.config_values import Seconds
from gameproxy.escaping import printable
from gameproxy.farm.orders import OrderFailed
from gameproxy.operators import Document, Operators
from gameproxy.sparing_log import SparingLog
from gameproxy.strict_json import BadMessage, decode_object, encode_object, plain
from gameproxy.subjects import REASON_MAX, Subject, subject_of

PAGE_MAX: Final = 1000
"""Rows of one answer at most."""
ROWS_MAX: Final = 1_000_000_000
ANSWER_TIME: Final = PATIENCE - 2.0
"""Seconds in which an order is done, or it is told that it was not yet."""
ACTOR: Final = "operator, by the admin API"
"""Who bans, in the list of bans."""

Model = TypeVar("Model", bound=BaseModel)
Reason = Annotated[str, Field(max_length=REASON_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class BanBody(_Body):
    """How long and why somebody is banned; ``None`` for ever."""

    seconds: Seconds | None = None
    reason: Reason = ""


class KickBody(_Body):
    """Whose sessions are to end."""

    kind: str = Field(pattern="^(player|address)$")
    subject: str


Handler = Callable[..., Any]
"""Given a request and the names in its path; gives an Answer, or fires with a Document."""


class Api:
    """Answers what is asked below ``/v1``.

    :param token: what whoever asks must know.
    """

    _log = Logger()

    def __init__(self, operators: Operators, token: bytes, clock: IReactorTime) -> None:
        self._operators = operators
        self._token = token
        self._clock = clock
        self._sparing = SparingLog(self._log, clock)
        self._description = (files(__package__) / "openapi.json").read_bytes()
        self._routes: tuple[tuple[str, tuple[str | None, ...], int, Handler], ...] = (
            ("GET", ("openapi.json",), 200, self._describe),
            ("GET", ("status",), 200, lambda asked: operators.status()),
            ("GET", ("servers",), 200, self._servers),
            ("POST", ("games", None, "start"), 202, self._start),
            ("POST", ("servers", None, "drain"), 200, self._drain),
            ("POST", ("servers", None, "stop"), 202, self._stop),
            ("GET", ("bans",), 200, self._bans),
            ("PUT", ("bans", None, None), 200, self._ban),
            ("DELETE", ("bans", None, None), 200, self._unban),
            ("POST", ("kicks",), 200, self._kick),
            ("POST", ("reload",), 200, self._reload),
        )

    def answer(self, asked: Asked) -> Deferred[Answer]:
        """Answer a request.

        :param asked: its path begins with ``v1``.
        """
        answer = maybeDeferred(self._answer, asked)
        return answer.addErrback(problem_of)

    def reconfigure(self, token: bytes) -> None:
        """Ask for another token from now on."""
        self._token = token

    def flush(self) -> None:
        """Log what is kept back."""
        self._sparing.flush()

    def _answer(self, asked: Asked) -> Deferred[Answer]:
        self._ensure_allowed(asked)
        path = (asked.path or ())[1:]
        fits = [route for route in self._routes if _fits(route[1], path)]
        if not fits:
            raise Problem(404, "There is nothing here: /v1/openapi.json tells what there is.")
        method = "GET" if asked.method == "HEAD" else asked.method
        for name, pattern, status, handle in fits:
            if name == method:
                names = [part for part, fixed in zip(path, pattern, strict=True) if fixed is None]
                done = maybeDeferred(handle, asked, *names)
                done.addTimeout(ANSWER_TIME, self._clock, _too_late)
                return done.addCallback(partial(self._done, asked, status))
        allowed = ", ".join(sorted({route[0] for route in fits}))
        raise Problem(405, f"This can be asked with {allowed} alone.", {"Allow": allowed})

    def _ensure_allowed(self, asked: Asked) -> None:
        """:raises Problem: whoever asks does not know the token."""
        scheme, _, token = asked.authorization.partition(b" ")
        # Compared in constant time, so that no time tells how much of it was right.
        if (
            not hmac.compare_digest(token.strip().lower(), self._token)
            or scheme.lower() != b"bearer"
        ):
            self._sparing.emit(
                "not allowed",
                LogLevel.warn,
                "The admin API was asked from {address} without its token.",
                event="admin_refused",
                address=asked.address,
            )
            header = {"WWW-Authenticate": 'Bearer realm="gameproxy"'}
            raise Problem(401, "The token is missing, or it is not this one.", header)

    def _done(self, asked: Asked, status: int, done: Document | Answer) -> Answer:
        if asked.method not in ("GET", "HEAD"):
            self._log.info(
                "Ordered by the admin API from {address}: {method} {path!r}",
                event="admin_order",
                address=asked.address,
                method=asked.method,
                path="/".join(asked.path or ()),
            )
        if isinstance(done, Answer):
            return done
        document = plain(done)
        assert isinstance(document, dict)
        return Answer(status, encode_object(document) + b"\n", "application/json")

    # What can be asked

    def _describe(self, asked: Asked) -> Answer:
        return Answer(200, self._description, "application/json")

    def _servers(self, asked: Asked) -> Deferred[Document]:
        return self._operators.servers(*_page(asked))

    def _start(self, asked: Asked, game: str) -> Deferred[Document]:
        return self._operators.start(game)

    def _drain(self, asked: Asked, server: str) -> Deferred[Document]:
        return self._operators.drain(server)

    def _stop(self, asked: Asked, server: str) -> Deferred[Document]:
        return self._operators.stop(server)

    def _bans(self, asked: Asked) -> Deferred[Document]:
        return self._operators.bans(*_page(asked))

    def _ban(self, asked: Asked, kind: str, name: str) -> Deferred[Document]:
        subject = _subject(kind, name)
        body = _body(asked, BanBody)
        reason = printable(body.reason)
        return self._operators.ban(subject, body.seconds, reason, ACTOR)

    def _unban(self, asked: Asked, kind: str, name: str) -> Deferred[Document]:
        return self._operators.unban(_subject(kind, name))

    def _kick(self, asked: Asked) -> Deferred[Document]:
        body = _body(asked, KickBody)
        return self._operators.kick(_subject(body.kind, body.subject))

    def _reload(self, asked: Asked) -> Deferred[Document]:
        return self._operators.reload().addCallback(_ensure_reloaded)


def _ensure_reloaded(done: Document) -> Document:
    """:raises OrderFailed: it was not."""
    if done["reloaded"]:
        return {"changes": done["changes"], "left_out": done["left_out"]}
    problems = cast(list[dict[str, str]], done["problems"])
    lines = (": ".join(filter(None, (one["place"], one["problem"]))) for one in problems)
    raise OrderFailed("; ".join(lines))


def _fits(pattern: tuple[str | None, ...], path: tuple[str, ...]) -> bool:
    return len(pattern) == len(path) and all(
        fixed is None or fixed == part for fixed, part in zip(pattern, path, strict=True)
    )


def _subject(kind: str, name: str) -> Subject:
    try:
        return subject_of(kind, name)
    except ValueError as error:
        raise Problem(404, f"There can be no such {kind}: {error}.") from None


def _body(asked: Asked, model: type[Model]) -> Model:
    """:raises Problem: there is something else in the body."""
    if asked.body is None:
        raise Problem(413, f"A body has at most {BODY_MAX} bytes.")
    if asked.content_type != "application/json":
        raise Problem(415, "A body is JSON: Content-Type: application/json.")
    try:
        return model.model_validate(decode_object(asked.body))
    except BadMessage as error:
        raise Problem(400, f"The body is no use: {error}.") from None
    except ValidationError as error:
        faults = "; ".join(f"{place}: {fault}" for place, fault in problems_in(error))
        raise Problem(400, f"The body is no use: {faults}.") from None


def _page(asked: Asked) -> tuple[int, int]:
    """``limit`` and ``offset``."""
    return _number(asked, "limit", PAGE_MAX, 1, PAGE_MAX), _number(asked, "offset", 0, 0, ROWS_MAX)


def _number(asked: Asked, name: str, default: int, least: int, most: int) -> int:
    values = asked.query.get(name)
    if values is None:
        return default
    text = values[0]
    if len(values) > 1 or not text.isascii() or not text.isdecimal() or len(text) > len(str(most)):
        raise Problem(400, f"{name} is a whole number from {least} to {most}.")
    if not least <= int(text) <= most:
        raise Problem(400, f"{name} is a whole number from {least} to {most}.")
    return int(text)


def _too_late(result: object, seconds: float) -> NoReturn:
    raise Problem(503, f"It was not done within {seconds:g} s; it may be done still.")
