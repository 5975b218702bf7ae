"""One request and one answer on each connection, and bounds on all of it: a small face of :mod:`twisted.web.http`.

Connections are not kept: a scrape every few seconds does not feel it, and whoever is slow, or says nothing, has been
cut off after :data:`PATIENCE` whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, Request, datetimeToString

CONNECTIONS_MAX: Final = 16
"""Connections at once; further ones are closed without an answer."""
PATIENCE: Final = 10.0
"""Seconds from a connection to the end of its answer at most."""
BODY_MAX: Final = 16_384
"""Bytes of a request's body at most."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    :param path: its parts, decoded; ``None`` for what is no UTF-8.
    :param query: its parameters, each with its values.
    :param body: ``None`` when it is longer than :data:`BODY_MAX`.
    :param content_type: of the body, without parameters, in small letters.
    :param authorization: that header, if it came once.
    :param address: where it comes from.
    """

    method: str
    path: tuple[str, ...] | None
    query: Mapping[str, list[str]] = field(default_factory=dict)
    body: bytes | None = b""
    content_type: str = ""
    authorization: bytes = b""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    :param headers: more of them.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[Asked], Deferred[Answer]]
"""Gives the answer to a request. It is cancelled when whoever asked has gone."""


class AdminFactory(ServerFactory):
    """Takes connections.

    :param answer: gives the answers.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, answer: Answering) -> None:
        self.clock = clock
        self.answer = answer
        self.channels: list[_Channel] = []

    def buildProtocol(self, addr: IAddress | None) -> _Channel | None:
        if len(self.channels) >= CONNECTIONS_MAX:
            return None
        channel = _Channel(self)
        self.channels.append(channel)
        return channel

    def close(self) -> None:
        """End all connections now."""
        for channel in list(self.channels):
            channel.abort()


class _Exchange(Request):
    """A request until it is answered."""

    channel: _Channel

    def __init__(self, channel: _Channel, queued: bool = False) -> None:
        super().__init__(channel, False)
        self._body = bytearray()
        self._answering: Deferred[None] | None = None

    # What the channel calls

    def gotLength(self, length: int | None) -> None:
        """However long the body is said to be, it is kept by :meth:`handleContentChunk`, in memory."""

    def handleContentChunk(self, data: bytes) -> None:
        if len(self._body) <= BODY_MAX:
            self._body += data[: BODY_MAX + 1 - len(self._body)]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        site = self.channel.site
        answering = site.answer(self._asked()).addErrback(_failed)
        self._answering = answering.addCallback(self._reply, site.clock.seconds())

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self._answering is not None:
            self._answering.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._answering.cancel()

    def _asked(self) -> Asked:
        path, _, query = self.uri.partition(b"?")
        kind = self.requestHeaders.getRawHeaders(b"content-type", [b""])[-1]
        authorization = self.requestHeaders.getRawHeaders(b"authorization", [])
        return Asked(
            self.method.decode("latin-1"),
            _parts(path),
            _parameters(query),
            bytes(self._body) if len(self._body) <= BODY_MAX else None,
            kind.partition(b";")[0].strip().lower().decode("latin-1"),
            authorization[0] if len(authorization) == 1 else b"",
            str(getattr(self.client, "host", "")),
        )

    def _reply(self, answer: Answer, now: float) -> None:
        self.setResponseCode(answer.status, RESPONSES.get(answer.status, b""))
        headers = {
            "Date": datetimeToString(now).decode("ascii"),
            "Content-Length": str(len(answer.body)),
            "Content-Type": answer.content_type,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **answer.headers,
        }
        for name, value in headers.items():
            self.responseHeaders.setRawHeaders(name, [value])
        self.write(answer.body)
        self.finish()


def _failed(failure: Failure) -> Answer:
    if failure.check(CancelledError):
        failure.raiseException()
    Logger(namespace=__name__).failure("while answering a request to the admin site", failure)
    return Answer(500, b"Something failed here.\n")


class _Channel(HTTPChannel):
    """A connection: one request, one answer, and the time for both."""

    requestFactory = _Exchange  # type: ignore[assignment]  # a Request, for a channel of this kind
    timeOut = (
        None  # it would count from the last byte, and whoever sends one now and then would stay
    )
    _deadline: IDelayedCall

    def __init__(self, site: AdminFactory) -> None:
        super().__init__()
        self.site = site

    def connectionMade(self) -> None:
        self._deadline = self.site.clock.callLater(PATIENCE, self.abort)
        super().connectionMade()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        self.site.channels.remove(self)
        super().connectionLost(reason)

    def abort(self) -> None:
        """End the connection now."""
        cast(ITCPTransport, self.transport).abortConnection()


def _parts(path: bytes) -> tuple[str, ...] | None:
    try:
        # First taken apart, then decoded: a name may have a slash in it.
        return tuple(unquote_to_bytes(part).decode("utf-8") for part in path.split(b"/")[1:])
    except UnicodeDecodeError:
        return None


def _parameters(query: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in filter(None, query.split(b"&")):
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        text: Any = [unquote_to_bytes(part).decode("utf-8", "replace") for part in (name, value)]
        found.setdefault(text[0], []).append(text[1])
    return found
