"""Who wants to connect, and how: the way to a session."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from gameproxy.client.connection import Connection, DialectName, End, Ending
from gameproxy.client.session import Session
from gameproxy.escaping import printable
from gameproxy.frame_format import FORMATS, FrameFormat
from gameproxy.loops import Loop
from gameproxy.messages import PROPERTIES_MAX, Auth, Status
from gameproxy.reasons import CloseReason


class Refused(Exception):
    """The proxy did not let the client in.

    :ivar code: a close reason (docs/protocol, "Close reasons").
    :ivar message: for people. As it came: it is to be escaped before it is shown; ``str()`` of this does so.
    :ivar retry_after: seconds after which to try again makes sense, or ``None``.
    """

    def __init__(self, code: str, message: str, retry_after: float | None) -> None:
        super().__init__(code, message, retry_after)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return printable(f"{self.code}: {self.message}")


class ProtocolError(Exception):
    """What answers does not speak this protocol: it is no proxy, or has another dialect or frame format."""


class NotWelcomed(ConnectionError):
    """The connection was made, but ended, or took too long, before the proxy let the client in or said why not."""


AuthSource = Auth | Callable[[], Auth | Awaitable[Auth]]
"""Who the client is, and the proof; or a function that gives that, asked before each connection: a ticket is good
once."""


class Client:
    """Makes sessions on a proxy.

    :param loop: the event loop: :class:`gameproxy.loops.on_asyncio.AsyncioLoop` or
        :class:`gameproxy.loops.on_twisted.TwistedLoop`.
    :param auth: :func:`Guest`, :func:`Ticket` or :func:`Password`, or a function that gives one.
    :param format: the frame format, that of the proxy.
    :param dialect: ``native``, ``preamble`` or ``plain``, that of the proxy. With ``plain`` nothing of ``auth`` is
        sent.
    :param connect_timeout: seconds that connecting may take.
    :param welcome_timeout: seconds that the way in may take after that, waiting in the queue included.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        auth: AuthSource,
        *,
        format: FrameFormat = FORMATS["int32"],
        dialect: DialectName = "native",
        connect_timeout: float = 10.0,
        welcome_timeout: float = 300.0,
    ) -> None:
        if dialect not in ("native", "preamble", "plain"):
            raise ValueError(f"there is no dialect {dialect!r}")
        self.loop = loop
        self._host = host
        self._port = port
        self._auth = auth
        self._format = format
        self._dialect = dialect
        self._connect_timeout = connect_timeout
        self._welcome_timeout = welcome_timeout

    async def connect(self, on_status: Callable[[Status], object] | None = None) -> Session:
        """Connect, and wait until the proxy lets the client in. May be cancelled, which ends the connection.

        :param on_status: called while the client waits for a place, whenever that changes.
        :raises Refused: it is not let in.
        :raises ProtocolError: what answers is no proxy of this dialect and frame format.
        :raises OSError: the connection cannot be made; of which :class:`NotWelcomed` is a kind: it was made, but then
            lost, or it all took too long.
        :raises ValueError: AUTH is too large.
        """
        auth = self._auth
        if not isinstance(auth, Auth):
            auth = await self.loop.txaio.as_future(auth)
        connection = Connection(self.loop, auth, self._format, self._dialect, self._welcome_timeout)
        session = Session(self.loop, connection, on_status)
        try:
            await self.loop.connect(
                self._host, self._port, self._connect_timeout, lambda: connection
            )
            refusal = await session.way_in
        except BaseException:  # it is cancelled, too
            connection.abort()
            raise
        if refusal is not None:
            raise _not_let_in(refusal)
        return session


def _not_let_in(ending: Ending) -> Exception:
    if ending.end is End.REFUSED:
        return Refused(ending.code, ending.message, ending.retry_after)
    if ending.code == CloseReason.PROTOCOL_ERROR:
        return ProtocolError(ending.message)
    return NotWelcomed(ending.message)


def Guest(
    name: str, *, game: str | None = None, properties: Mapping[str, object] | None = None
) -> Auth:
    """A guest.

    :param name: 1 to 64 characters; the player is ``guest:NAME``.
    :param game: which game, where the proxy has several.
    :param properties: for the game server: at most 512 bytes as JSON.
    :raises ValueError: the properties are too large, or no JSON.
    """
    return Auth("guest", name=name, game=game, properties=_json(properties))


def Ticket(
    text: str, *, game: str | None = None, properties: Mapping[str, object] | None = None
) -> Auth:
    """A player with a ticket, which is good for one session.

    :param game: as of :func:`Guest`, as the properties are.
    """
    return Auth("ticket", ticket=text, game=game, properties=_json(properties))


def Password(
    username: str,
    password: str,
    *,
    game: str | None = None,
    properties: Mapping[str, object] | None = None,
) -> Auth:
    """A player with a password.

    :param game: as of :func:`Guest`, as the properties are.
    """
    return Auth(
        "password", username=username, password=password, game=game, properties=_json(properties)
    )


def _json(properties: Mapping[str, object] | None) -> str:
    text = json.dumps(dict(properties or {}), separators=(",", ":"), allow_nan=False)
    if len(text) > PROPERTIES_MAX:
        raise ValueError(f"properties may have {PROPERTIES_MAX} bytes of JSON")
    return text
