"""The control socket: who may use it, what it bounds, and what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.control import (
    CONNECTIONS_MAX,
    PATIENCE,
    REQUEST_MAX,
    ControlSocket,
    control_folder,
    control_path,
)
from gameproxy.reasons import CloseReason, Refusal


class Reactor(MemoryReactorClock):
    """Makes the file of a UNIX socket, as a real one does.

    :ivar broken: when set, what listening raises.
    """

    broken: Exception | None = None

    def listenUNIX(self, address, factory, backlog=50, mode=0o666, wantPID=0):  # type: ignore[no-untyped-def]
        if self.broken is not None:
            raise self.broken
        Path(address).touch()
        return super().listenUNIX(address, factory, backlog, mode, wantPID)


class ControlTestCase(SynchronousTestCase):
    """A control socket that is not open yet."""

    def setUp(self) -> None:
        folder = TemporaryDirectory(prefix="gp")
        self.addCleanup(folder.cleanup)
        self.database = Path(folder.name) / "farm.db"
        self.folder = control_folder(self.database)
        self.reactor = Reactor()
        self.requests: list[Mapping[str, object]] = []
        self.answers: list[Deferred[dict[str, object]]] = []
        self.control = ControlSocket(self.reactor, self.database, "proxy-1", self.answer)
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, object]) -> None:
        if event.get("log_namespace") == "gameproxy.control.ControlSocket":
            self.warnings.append(str(event.get("error")))

    def answer(self, request: Mapping[str, object]) -> Deferred[dict[str, object]]:
        self.requests.append(request)
        self.answers.append(Deferred())
        return self.answers[-1]


class Files(ControlTestCase):
    """The socket as a file."""

    def listens(self) -> bool:
        """Whether it came so far; if not, one warning has said why."""
        self.assertEqual(len(self.warnings), 0 if self.reactor.unixServers else 1)
        return bool(self.reactor.unixServers)

    def test_owner_only(self) -> None:
        """Only the owner may enter the folder, and only the owner may use the socket."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.control.open(["proxy-1"])
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        ((path, _, _, mode, _),) = self.reactor.unixServers
        self.assertEqual((Path(path), mode), (control_path(self.database, "proxy-1"), 0o600))

    def test_folder_open_to_others(self) -> None:
        """A folder that others may enter is closed to them first."""
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.control.open(["proxy-1"])
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        self.assertTrue(self.listens())

    def test_folder_of_somebody_else(self) -> None:
        """In what is no folder, a link, or a folder of another user nothing is made, and the proxy goes on."""
        elsewhere = self.database.with_suffix(".elsewhere")
        elsewhere.mkdir()
        self.folder.symlink_to(elsewhere)
        self.control.open(["proxy-1"])
        self.assertFalse(self.listens())
        self.assertEqual(list(elsewhere.iterdir()), [])
        self.folder.unlink()
        self.folder.write_text("")
        self.warnings.clear()
        self.control.open(["proxy-1"])
        self.assertFalse(self.listens())
        self.folder.unlink()
        self.folder.mkdir()
        self.patch(os, "geteuid", lambda: os.getuid() + 1)
        self.warnings.clear()
        self.control.open(["proxy-1"])
        self.assertFalse(self.listens())
        self.control.close()

    def test_long_path(self) -> None:
        """A path that is too long for a UNIX socket is told as that, and the proxy goes on without."""
        database = self.database.parent / ("x" * 100) / "farm.db"
        database.parent.mkdir()
        ControlSocket(self.reactor, database, "proxy-1", self.answer).open(["proxy-1"])
        self.assertFalse(self.listens())
        self.assertEqual(self.warnings, ["a socket's path has at most 107 bytes"])

    def test_cannot_listen(self) -> None:
        """When the socket cannot be made the proxy goes on."""
        self.reactor.broken = CannotListenError(None, "farm.sock", OSError("full"))
        self.control.open(["proxy-1"])
        self.assertFalse(self.listens())

    def test_left_behind(self) -> None:
        """Sockets that nobody listens at are removed; not those of living proxies, nor what is no socket."""
        self.folder.mkdir(mode=0o700)
        listening = []
        for name, listens in (("dead", False), ("living", True), ("registered", False)):
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.bind(str(self.folder / f"{name}.sock"))
            if listens:
                one.listen()
                listening.append(one)
        (self.folder / "note.txt").write_text("mine")
        (self.folder / "loop.sock").symlink_to("loop.sock")
        self.control.open(["proxy-1", "registered"])
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()),
            ["living.sock", "loop.sock", "note.txt", "proxy-1.sock", "registered.sock"],
        )

    def test_removed_by_somebody(self) -> None:
        """A proxy whose socket somebody has removed can stop: what Twisted will remove is there."""
        self.control.open(["proxy-1"])
        control_path(self.database, "proxy-1").unlink()
        self.folder.rmdir()
        self.control.close()
        self.assertTrue(control_path(self.database, "proxy-1").exists())
        self.control.close()


class Conversations(ControlTestCase):
    """What is said there."""

    def setUp(self) -> None:
        super().setUp()
        self.control.open(["proxy-1"])
        self.factory = self.reactor.unixServers[0][1]

    def connect(self) -> StringTransport | None:
        """A new connection, ``None`` if it is not taken."""
        protocol = self.factory.buildProtocol(None)
        if protocol is None:
            return None
        transport = StringTransport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def say(self, data: bytes) -> StringTransport:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(data)
        return transport

    def lose(self, transport: StringTransport) -> None:
        transport.protocol.connectionLost(Failure(ConnectionDone()))

    def error(self, transport: StringTransport) -> str:
        self.assertTrue(transport.disconnecting)
        answer = json.loads(transport.value())
        self.assertEqual(set(answer), {"error", "message"})
        return str(answer["error"])

    def test_answer(self) -> None:
        """A request on a line gets its answer on a line, and the connection ends; nothing is left of it."""
        transport = self.say(b'{"ask": "sta')
        transport.protocol.dataReceived(b'tus"}\n')
        self.assertEqual(self.requests, [{"ask": "status"}])
        self.assertEqual(transport.value(), b"")
        self.answers[0].callback({"sessions": 3})
        self.assertEqual(transport.value(), b'{"answer":{"sessions":3}}\n')
        self.assertTrue(transport.disconnecting)
        self.lose(transport)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, [])

    def test_refusal(self) -> None:
        """What is refused is told with its code, what fails as internal, with nothing of it."""
        transport = self.say(b"{}\n")
        self.answers[0].errback(Refusal(CloseReason.UNKNOWN_GAME))
        self.assertEqual(self.error(transport), "unknown_game")
        transport = self.say(b"{}\n")
        self.answers[1].errback(RuntimeError("secret"))
        self.assertEqual(self.error(transport), "internal")
        self.assertNotIn(b"secret", transport.value())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_request(self) -> None:
        """What is no JSON object is said to be none."""
        for line in (b"", b"status", b"[1]", b'{"ask": 1, "ask": 2}', b"\xff"):
            self.assertEqual(self.error(self.say(line + b"\n")), "protocol_error")
        self.assertEqual(self.requests, [])

    def test_long_request(self) -> None:
        """A request that is too long ends the connection, whether its end comes or not."""
        self.assertTrue(self.say(b" " * (REQUEST_MAX + 1)).disconnected)
        self.assertTrue(self.say(b" " * (REQUEST_MAX + 1) + b"\n").disconnected)
        self.assertFalse(self.say(b" " * REQUEST_MAX).disconnected)

    def test_second_request(self) -> None:
        """A second request ends the connection, and is not done."""
        transport = self.say(b'{"ask": 1}\n{"ask": 2}\n')
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.requests, [{"ask": 1}])

    def test_many(self) -> None:
        """There are only so many connections; when one ends another may come."""
        transports = [self.connect() for _ in range(CONNECTIONS_MAX)]
        self.assertIsNone(self.connect())
        assert transports[0] is not None
        self.lose(transports[0])
        self.assertIsNotNone(self.connect())

    def test_time(self) -> None:
        """Whoever says nothing, and who waits for an answer, is cut off in the end."""
        silent = self.connect()
        waiting = self.say(b"{}\n")
        assert silent is not None
        self.reactor.advance(PATIENCE - 0.1)
        self.assertFalse(silent.disconnected or waiting.disconnected)
        self.reactor.advance(0.2)
        self.assertTrue(silent.disconnected and waiting.disconnected)
        self.lose(waiting)
        self.answers[0].callback({})

    def test_close(self) -> None:
        """When the proxy ends its connections do."""
        transport = self.connect()
        self.control.close()
        assert transport is not None
        self.assertTrue(transport.disconnected)
