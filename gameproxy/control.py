"""The control socket: how programs of the proxy's owner on this machine ask something of a running proxy.

It is a UNIX socket beside the farm's database, ``<stem>.control/<proxy id>.sock``, in a folder that only the owner may
enter. A connection is one request and one answer, each a JSON object on a line of its own: what was asked for is the
member ``answer``; or there is ``error``, a code, and ``message``.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IReactorUNIX,
    ITCPTransport,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from gameproxy.reasons import CloseReason, Refusal
from gameproxy.strict_json import BadMessage, decode_object, encode_object

REQUEST_MAX: Final = 4096
"""Bytes of a request at most."""
CONNECTIONS_MAX: Final = 8
"""Connections at once; further ones are closed without an answer."""
PATIENCE: Final = 10.0
"""Seconds from a connection to the end of its answer at most."""
_PATH_MAX: Final = 107
"""Bytes of a socket's path at most (unix(7): sun_path has 108, with the zero byte)."""

Answer = Callable[[Mapping[str, object]], Deferred[dict[str, object]]]
"""Gives the answer to a request; fails with Refusal when there is none."""


def control_folder(database: Path) -> Path:
    """Where the sockets of the proxies on this database are."""
    return database.with_suffix(".control")


def control_path(database: Path, proxy: str) -> Path:
    """Where the socket of the proxy with that id is."""
    return control_folder(database) / f"{proxy}.sock"


class ControlSocket:
    """Where a proxy is asked.

    A proxy runs as well without it: what keeps it from being opened is logged, and nothing else.

    :param reactor: provides IReactorUNIX and IReactorTime.
    :param database: the farm's.
    :param proxy: the proxy's id.
    """

    _log = Logger()

    def __init__(self, reactor: object, database: Path, proxy: str, answer: Answer) -> None:
        self._reactor = cast(IReactorUNIX, reactor)
        self._folder = control_folder(database)
        self._path = control_path(database, proxy)
        self._factory = _Factory(cast(IReactorTime, reactor), answer)
        self._port: IListeningPort | None = None

    def open(self, proxies: Collection[str]) -> None:
        """Begin to listen.

        :param proxies: the ids of the farm's proxies, this one too: what others have left behind is removed.
        """
        try:
            if len(os.fsencode(self._path)) > _PATH_MAX:
                raise OSError(f"a socket's path has at most {_PATH_MAX} bytes")
            _make_private(self._folder)
            for left in sorted(self._folder.glob("*.sock")):
                # It takes both: a proxy that is swept out of the table by mistake still listens, and one that is about
                # to listen does not yet, but is in the table.
                if left.stem not in proxies and _is_dead(left):
                    left.unlink(missing_ok=True)
            self._port = self._reactor.listenUNIX(str(self._path), self._factory, mode=0o600)
        except (OSError, CannotListenError) as error:
            self._log.warn(
                "There is no control socket at {path!r}, so operators cannot ask this proxy: {error}",
                path=str(self._path),
                error=str(error),
            )

    def close(self) -> None:
        """Listen no more, and end what is connected."""
        if self._port is None:
            return
        # Twisted removes the socket, and does not get to its end if somebody else has done so.
        if not self._path.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._path.touch()
        maybeDeferred(self._port.stopListening).addErrback(
            lambda failure: self._log.failure("closing the control socket", failure)
        )
        self._port = None
        self._factory.close()


class _Factory(ServerFactory):
    """Bounds the connections."""

    noisy = False

    def __init__(self, clock: IReactorTime, answer: Answer) -> None:
        self.clock = clock
        self.answer = answer
        self.connections: list[_Conversation] = []

    def buildProtocol(self, addr: IAddress | None) -> _Conversation | None:
        if len(self.connections) >= CONNECTIONS_MAX:
            return None
        conversation = _Conversation(self)
        self.connections.append(conversation)
        return conversation

    def close(self) -> None:
        for conversation in list(self.connections):
            conversation.abort()


class _Conversation(LineOnlyReceiver):
    """One request and its answer."""

    delimiter = b"\n"
    MAX_LENGTH = REQUEST_MAX
    _log = Logger()
    _deadline: IDelayedCall

    def __init__(self, factory: _Factory) -> None:
        self._factory = factory
        self._asked = False

    def connectionMade(self) -> None:
        self._deadline = self._factory.clock.callLater(PATIENCE, self.abort)

    def lineReceived(self, line: bytes) -> None:
        if self._asked:
            self.abort()
            return
        self._asked = True
        answered = maybeDeferred(self._ask, line)
        answered.addCallbacks(lambda answer: {"answer": answer}, self._refused)
        answered.addCallback(self._tell)
        answered.addErrback(lambda failure: self._log.failure("at the control socket", failure))

    def lineLengthExceeded(self, line: bytes) -> None:
        self.abort()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        self._factory.connections.remove(self)

    def abort(self) -> None:
        """End the connection now."""
        cast(ITCPTransport, self.transport).abortConnection()

    def _ask(self, line: bytes) -> Deferred[dict[str, object]]:
        return self._factory.answer(decode_object(line))

    def _refused(self, failure: Failure) -> dict[str, object]:
        error = failure.value
        if isinstance(error, BadMessage):
            error = Refusal(CloseReason.PROTOCOL_ERROR, str(error))
        elif not isinstance(error, Refusal):
            self._log.failure("at the control socket", failure)
            error = Refusal(CloseReason.INTERNAL)
        return {"error": error.reason.value, "message": error.message}

    def _tell(self, answer: dict[str, object]) -> None:
        transport = cast(ITCPTransport, self.transport)
        transport.write(encode_object(answer) + b"\n")
        transport.loseConnection()


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter.

    :raises OSError: there is something else.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(f"{folder} is no folder of this user's")
    if stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


def _is_dead(path: Path) -> bool:
    """Whether nobody listens at a socket any more."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
