"""gameproxy.service: a whole proxy, on a reactor in memory"""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.test.iosim import ConnectionCompleter, IOPump
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.echo import Echo
from gameproxy.config import Config, DialectConfig, FramingConfig, ProxyConfig, ServerConfig
from gameproxy.farm import StoreUnavailable
from gameproxy.gameserver import GameServer, GameServerService, Place, Player
from gameproxy.handshake import derive_server_key
from gameproxy.host import Host
from gameproxy.interfaces import SessionRecord
from gameproxy.messages import Auth
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.service import ConfigurationError, GameProxy
from gameproxy.testing import seeded_entropy
from tests.inline_threads import InlineReactor
from tests.visitor import Visitor

SECRET = bytes(range(32))
GAME_PORT = 5000


class ServiceReactor(InlineReactor, MemoryReactor):
    """A clock, threads that do all at once, and a network in memory."""

    def __init__(self) -> None:
        MemoryReactor.__init__(self)
        InlineReactor.__init__(self)


class Port:
    """A listening port that notes that it is closed, which may fail."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.closed = False

    def stopListening(self) -> None:
        self.closed = True
        if self.fault is not None:
            raise self.fault


class Endpoint:
    """An endpoint that listens as a test wants it."""

    def __init__(self, result: Deferred[IListeningPort]) -> None:
        self.result = result

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.result


class ServiceTestCase(SynchronousTestCase):
    """Has a folder, a reactor, and what is needed to put up a proxy and a game server there."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        secret = self.folder / "farm.secret"
        secret.write_text(SECRET.hex())
        secret.chmod(0o600)
        self.reactor = ServiceReactor()
        self.network = ConnectionCompleter(self.reactor)
        self.pumps: list[IOPump] = []
        self.records: list[SessionRecord] = []

    def config(self, **sections: Any) -> Config:
        """A configuration with one game server."""
        sections.setdefault("auth", {"guests": True})
        server = ServerConfig(id="s1", game="echo", host="192.0.2.5", port=GAME_PORT, capacity=10)
        return Config.model_validate({"servers": [server], "folder": self.folder, **sections})

    def proxy(self, config: Config | None = None, **arguments: Any) -> GameProxy:
        """A proxy that is not started yet."""
        arguments.setdefault("on_session_end", self.records.append)
        arguments.setdefault("endpoints", [TCP4ServerEndpoint(self.reactor, 7777)])
        arguments.setdefault("host", Host(database_threads=self.reactor.threads))
        proxy = GameProxy(
            config or self.config(), self.reactor, entropy=seeded_entropy(), **arguments
        )
        self.addCleanup(proxy._relays.close)  # the kernel's have descriptors
        return proxy

    def started(self, config: Config | None = None, **arguments: Any) -> GameProxy:
        """A proxy that serves."""
        proxy = self.proxy(config, **arguments)
        proxy.startService()
        self.settle()
        self.assertIsNone(self.successResultOf(proxy.started))
        return proxy

    def game_server(self) -> GameServer:
        """The game server of the configuration, listening."""
        place = Place("s1", derive_server_key(SECRET, "s1"), "192.0.2.5", GAME_PORT, 10)
        service = GameServerService(Echo(), place, self.reactor, entropy=seeded_entropy("server"))
        service.startService()
        return service.server

    def visit(self, **auth: Any) -> Visitor:
        """A client connects, and all that can happen at once happens."""
        who = Auth(**{"mechanism": "guest", "name": "ann", **auth})
        visitor = Visitor(self.reactor, "127.0.0.1", 7777, who)
        self.settle()
        if not visitor.happened:
            self.let_end()
        return visitor

    def connect(self, client: Protocol) -> None:
        """A client of any kind connects."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7777)
        connectProtocol(endpoint, client)
        self.settle()

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything happen that is to."""
        self.reactor.advance(seconds)
        for _ in range(20):
            self.reactor.settle()
            while (pump := self.network.succeedOnce()) is not None:
                self.pumps.append(pump)
            for pump in self.pumps:
                pump.flush()

    def let_end(self) -> None:
        """Let connections end: in memory none is half closed, so that both sides wait as long as they may."""
        for _ in range(12):
            self.settle(1.0)


class WholeSessionTest(ServiceTestCase):
    """From connecting to the record"""

    def test_session(self) -> None:
        """A client authenticates, gets a slot, is admitted, plays and leaves; the numbers are right again."""
        proxy, server = self.started(), self.game_server()
        visitor = self.visit()
        self.assertEqual(visitor.happened, ["welcome"])
        self.assertEqual([player.name for player in server.players.values()], ["guest:ann"])
        visitor.send(b"\x10hello")
        self.settle()
        self.assertEqual(visitor.happened, ["welcome", b"\x10hello"])
        self.assertEqual(len(proxy.sessions), 1)
        visitor.leave()
        self.let_end()
        (record,) = self.records
        self.assertEqual(record.reason, CloseReason.LEFT)
        self.assertEqual((record.player, record.server), ("guest:ann", "s1"))
        self.assertEqual(record.traffic.client_frames, 1)
        self.assertEqual(proxy.metrics.ended[CloseReason.LEFT], 1)
        self.assertEqual(len(proxy.sessions), 0)
        self.assertEqual(server.players, {})
        stats: Any = self.successResultOf(self.after(proxy.farm.stats()))
        self.assertEqual(
            (stats["farm"]["connections_added"], stats["farm"]["connections_removed"]), (1, 1)
        )

    def after(self, result: Deferred[Any]) -> Deferred[Any]:
        """The same, when everything has happened."""
        self.settle()
        return result

    def test_kicked(self) -> None:
        """A player who is kicked with a ban is told, and not let in again: already at connecting."""

        class Strict(Echo):
            def received(self, player: Player, body: bytes) -> None:
                player.kick("Be nice.", ban_for=60.0)

        proxy, server = self.started(), self.game_server()
        server.game = Strict()
        visitor = self.visit()
        visitor.send(b"\x10rude")
        self.let_end()
        self.assertEqual(visitor.happened, ["welcome", "kicked"])
        self.assertEqual(self.visit().happened, ["banned"])
        self.assertEqual(self.visit(name="eve").happened, ["welcome"])
        self.assertEqual([record.reason for record in self.records][:1], [CloseReason.KICKED])
        self.assertEqual(len(proxy.sessions), 1)

    def test_banned_address(self) -> None:
        """Who comes from a banned address is told so before it says anything."""
        proxy = self.started()
        proxy.farm.check_address = (  # type: ignore[method-assign]  # addresses in memory have no IP
            lambda address: fail(Refusal(CloseReason.BANNED))
        )
        silent = MemoryVisitor()
        self.connect(silent)
        self.assertIn(b'"banned"', silent.data)

    def test_selector(self) -> None:
        """A program's own selector chooses the game server; it is told which not to choose."""
        second = ServerConfig(id="s2", game="echo", host="192.0.2.6", port=5000, capacity=10)
        config = self.config()
        config = self.config(servers=[*config.servers, second])
        selector = Last()
        self.started(config, selector=selector)
        self.reactor.listenTCP(GAME_PORT, Factory.forProtocol(MemoryVisitor), interface="192.0.2.6")
        self.visit()
        self.let_end()
        self.assertEqual(list(dict.fromkeys(selector.picked)), ["s2", "s1", None])
        self.assertEqual([record.server for record in self.records], ["s1"])

    def test_full(self) -> None:
        """With ``max_sessions`` the next client is told that there is no room, and to come again."""
        self.started(self.config(proxy=ProxyConfig(max_sessions=1)))
        self.game_server()
        self.assertEqual(self.visit().happened, ["welcome"])
        self.assertEqual(self.visit(name="eve").happened, ["proxy_full"])

    def test_plain(self) -> None:
        """In dialect plain, clients are guests whatever else the configuration says, with every admission."""
        for admission in ("none", "handshake", "proxy-v2"):
            self.setUp()
            config = self.config(
                auth={"guests": False},
                dialect=DialectConfig(client="plain", admission=admission),
                framing=FramingConfig(),
            )
            proxy = self.started(config)
            if admission == "handshake":
                self.game_server()
            else:
                factory = Factory.forProtocol(MemoryVisitor)
                self.reactor.listenTCP(GAME_PORT, factory, interface="192.0.2.5")
            visitor = MemoryVisitor(b"\0\0\0\1x")
            self.connect(visitor)
            states = [session.state for session in proxy.sessions]
            self.assertEqual(states, ["relaying"], admission)

    def test_on_session_end_raises(self) -> None:
        """A program's own function that raises is logged, and nothing else happens."""

        def raises(record: SessionRecord) -> None:
            raise ZeroDivisionError

        proxy = self.started(on_session_end=raises)
        visitor = self.visit()
        self.let_end()
        self.assertEqual(visitor.happened, ["server_unreachable"])
        self.assertEqual(len(proxy.sessions), 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_without_on_session_end(self) -> None:
        """A program need not want to know."""
        proxy = self.started(on_session_end=None)
        self.visit()
        self.let_end()
        self.assertEqual(sum(proxy.metrics.ended.values()), 1)

    def test_end_session(self) -> None:
        """The farm can end a session; one that is over already is nobody's."""
        proxy = self.started()
        self.game_server()
        visitor = self.visit()
        (session,) = proxy.sessions
        proxy.sessions.end(session.id, Refusal(CloseReason.REPLACED))
        proxy.sessions.end("nobody's", Refusal(CloseReason.REPLACED))
        self.let_end()
        self.assertEqual(visitor.happened, ["welcome", "replaced"])

    def test_key_file(self) -> None:
        """A listed game server with a key file of its own proves itself with that key."""
        key = self.folder / "s1.key"
        key.write_text(bytes(32).hex())
        key.chmod(0o600)
        server = ServerConfig(
            id="s1",
            game="echo",
            host="192.0.2.5",
            port=GAME_PORT,
            capacity=10,
            key_file="s1.key",
        )
        self.started(self.config(servers=[server]))
        game_server = self.game_server()
        self.assertEqual(self.visit().happened, ["handshake_failed"])
        game_server.place = Place("s1", bytes(32), "192.0.2.5", GAME_PORT, 10)
        self.settle(10.0)
        self.assertEqual(self.visit().happened, ["welcome"])


class Last:
    """Chooses the last game server that may be chosen, and notes what it was asked."""

    def __init__(self) -> None:
        self.picked: list[str | None] = []

    def pick(self, cursor: sqlite3.Cursor, game: str, excluded: Iterable[str] = ()) -> str | None:
        ids = [row[0] for row in cursor.execute("SELECT id FROM game_servers ORDER BY id DESC")]
        self.picked.append(next((id for id in ids if id not in excluded), None))
        return self.picked[-1]


class MemoryVisitor(Protocol):
    """A client, or a game server, that says what a test wants and keeps what comes."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.data = b""

    def connectionMade(self) -> None:
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        """Nothing is to be done."""


class StartTest(ServiceTestCase):
    """What can go wrong at the start"""

    def test_listen_twice(self) -> None:
        """Privileged start listens, and the start does not do it again."""
        proxy = self.proxy()
        proxy.privilegedStartService()
        proxy.startService()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [7777])

    def test_from_configuration(self) -> None:
        """Without endpoints it listens where the configuration says."""
        listen = ("tcp:7001", "tcp:7002")
        self.started(self.config(proxy=ProxyConfig(listen=listen)), endpoints=None)
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [7001, 7002])

    def test_no_such_endpoint(self) -> None:
        """What is no endpoint is told with its place in the configuration."""
        listen = ("tcp:7001", "bogus:7002")
        config = self.config(proxy=ProxyConfig().model_copy(update={"listen": listen}))
        proxy = self.proxy(config, endpoints=None)
        error = self.assertRaises(ConfigurationError, proxy.startService)
        self.assertTrue(str(error).startswith("proxy.listen[1]: is no endpoint"), str(error))

    def test_cannot_listen(self) -> None:
        """An address that is in use is an error at once, and the service does not count as running."""
        endpoint = Endpoint(fail(CannotListenError("", 7777, OSError("in use"))))
        proxy = self.proxy(endpoints=[endpoint])
        self.assertRaises(CannotListenError, proxy.startService)
        self.assertFalse(proxy.running)

    def test_cannot_listen_later(self) -> None:
        """An endpoint that fails later lets ``started`` fail with its reason."""
        listening: Deferred[IListeningPort] = Deferred()
        proxy = self.proxy(endpoints=[Endpoint(listening)])
        proxy.startService()
        self.settle()
        self.assertNoResult(proxy.started)
        listening.errback(CannotListenError("", 7777, OSError("in use")))
        self.failureResultOf(proxy.started, CannotListenError)

    def test_no_database(self) -> None:
        """A farm that cannot be opened lets ``started`` fail with its reason."""
        proxy = self.proxy(self.config(proxy=ProxyConfig(database="sqlite:///no/farm.db")))
        proxy.startService()
        self.settle()
        self.failureResultOf(proxy.started, StoreUnavailable)

    def test_no_farm_no_listening(self) -> None:
        """Without a farm nobody can be served, so nobody may connect."""
        port = Port()
        listening: Deferred[IListeningPort] = Deferred()
        listening.callback(port)  # type: ignore[arg-type]  # as much of a port as is needed
        proxy = self.proxy(
            self.config(proxy=ProxyConfig(database="sqlite:///no/farm.db")),
            endpoints=[Endpoint(listening)],
        )
        proxy.startService()
        self.settle()
        self.failureResultOf(proxy.started, StoreUnavailable)
        self.assertTrue(port.closed)

    def test_descriptors(self) -> None:
        """More sessions than the system has descriptors for are refused, with what to do."""
        proxy = self.proxy(self.config(proxy=ProxyConfig(max_sessions=1_000_000)))
        error = self.assertRaises(ConfigurationError, proxy.startService)
        self.assertIn("max_sessions", str(error))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_raises_limit(self) -> None:
        """As many descriptors as are needed are asked for, where that is allowed."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
        self.started(self.config(proxy=ProxyConfig(max_sessions=1000)))
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 2 * (1000 + 256) + 256)

    def test_bad_files(self) -> None:
        """A file that cannot be used is told when the proxy is made, with its place in the configuration."""
        (self.folder / "short").write_text("none")
        (self.folder / "short").chmod(0o600)
        listed = {"id": "s2", "game": "echo", "host": "h", "port": 1, "capacity": 1}
        ticket_key = {"id": "web", "algorithm": "HS256", "file": "short"}
        for place, sections in (
            ("proxy.secret_file", {"proxy": {"secret_file": "short"}}),
            ("servers[0].key_file", {"servers": [{**listed, "key_file": "short"}]}),
            ("auth.ticket_keys[0].file", {"auth": {"ticket_keys": [ticket_key]}}),
            ("auth.password_file", {"auth": {"password_file": "short"}}),
        ):
            error = self.assertRaises(ConfigurationError, self.proxy, self.config(**sections))
            self.assertTrue(str(error).startswith(f"{place}: "), str(error))

    def test_secret_is_made(self) -> None:
        """Without a secret one is made, from the proxy's entropy."""
        secrets = []
        for _ in range(2):
            (self.folder / "farm.secret").unlink()
            self.proxy()
            secrets.append((self.folder / "farm.secret").read_text())
        self.assertEqual(secrets[0], secrets[1])
        self.assertNotEqual(secrets[0], SECRET.hex())


class StopTest(ServiceTestCase):
    """Draining"""

    def test_idle(self) -> None:
        """Without sessions it stops at once, and leaves the farm."""
        proxy = self.started()
        done = proxy.stopService()
        self.settle()
        self.assertIsNone(self.successResultOf(done))
        database = sqlite3.connect(self.folder / "farm.db")
        self.assertEqual(database.execute("SELECT count(*) FROM proxies").fetchall(), [(0,)])
        database.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_never_started(self) -> None:
        """What was never started can be stopped."""
        done = self.proxy().stopService()
        self.settle()
        self.assertIsNone(self.successResultOf(done))

    def test_grace(self) -> None:
        """Sessions go on for the grace; then they are told, and it ends when the last one is over."""
        proxy = self.started(self.config(proxy=ProxyConfig(drain_grace=10.0)))
        self.game_server()
        visitor = self.visit()
        done = proxy.stopService()
        self.settle(9.0)
        visitor.send(b"\x10still here")
        self.settle()
        self.assertEqual(visitor.happened[-1], b"\x10still here")
        self.assertNoResult(done)
        self.let_end()
        self.assertEqual(visitor.happened[-1], "draining")
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([record.reason for record in self.records], [CloseReason.DRAINING])

    def test_left_in_time(self) -> None:
        """When all have left before the grace is over, it waits no longer."""
        proxy = self.started(self.config(proxy=ProxyConfig(drain_grace=1000.0)))
        self.game_server()
        visitor = self.visit()
        done = proxy.stopService()
        visitor.leave()
        self.let_end()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([record.reason for record in self.records], [CloseReason.LEFT])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_twice(self) -> None:
        """Who asks a second time is told when it is done, too."""
        proxy = self.started(self.config(proxy=ProxyConfig(drain_grace=10.0)))
        self.game_server()
        self.visit()
        first, second = proxy.stopService(), proxy.stopService()
        self.settle(9.0)
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.let_end()
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(second))
        third = proxy.stopService()
        self.assertIsNone(self.successResultOf(third))

    def test_hastened(self) -> None:
        """When the drain is hastened those who are left are told at once; again, it changes nothing. Before a drain
        there is nothing to hasten."""
        proxy = self.started(self.config(proxy=ProxyConfig(drain_grace=1000.0)))
        self.game_server()
        visitor = self.visit()
        proxy.hasten()
        self.settle()
        self.assertEqual([session.state for session in proxy.sessions], ["relaying"])
        done = proxy.stopService()
        self.settle(3.0)
        assert proxy.drain is not None
        began = proxy.drain.since
        self.assertEqual(proxy.drain.ends_at, began + 1000.0)
        self.assertEqual(visitor.happened, ["welcome"])
        proxy.hasten()
        self.assertEqual(proxy.drain.ends_at, began + 3.0)
        self.settle()
        self.assertEqual([session.state for session in proxy.sessions], ["closing"])
        proxy.hasten()
        self.let_end()
        self.assertEqual(visitor.happened, ["welcome", "draining"])
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hastened_at_once(self) -> None:
        """It may be hastened in the moment in which it begins."""
        proxy = self.started(self.config(proxy=ProxyConfig(drain_grace=1000.0)))
        self.game_server()
        visitor = self.visit()
        done = proxy.stopService()
        proxy.hasten()
        self.let_end()
        self.assertEqual(visitor.happened, ["welcome", "draining"])
        self.assertIsNone(self.successResultOf(done))

    def test_someone_stays_though_hastened(self) -> None:
        """A session that does not end keeps a hastened proxy for seconds, however long it may stall otherwise."""
        settings = ProxyConfig(drain_grace=1000.0, stall_timeout=700.0)
        proxy = self.started(self.config(proxy=settings))
        self.game_server()
        self.visit()
        (session,) = proxy.sessions
        session.inputs = MemoryInputs()  # type: ignore[assignment]  # it does not end whatever it is told
        done = proxy.stopService()
        self.settle(2.0)
        proxy.hasten()
        self.settle(4.9)
        self.assertNoResult(done)
        self.settle(0.2)
        self.assertIsNone(self.successResultOf(done))

    def test_someone_stays(self) -> None:
        """A session that does not end keeps the proxy only so long."""
        settings = ProxyConfig(drain_grace=10.0, stall_timeout=7.0)
        proxy = self.started(self.config(proxy=settings))
        self.game_server()
        self.visit()
        (session,) = proxy.sessions
        session.inputs = MemoryInputs()  # type: ignore[assignment]  # it does not end whatever it is told
        done = proxy.stopService()
        self.settle(21.9)
        self.assertNoResult(done)
        self.settle(0.2)
        self.assertIsNone(self.successResultOf(done))

    def test_listening_stops_first(self) -> None:
        """Ports are closed when stopping begins, not when it is done; one that cannot be closed does not hold up
        the rest."""
        ports = [Port(ZeroDivisionError()), Port()]
        listening = [Endpoint(Deferred()) for _ in range(3)]
        for endpoint, port in zip(listening, ports, strict=False):
            endpoint.result.callback(port)  # type: ignore[arg-type]  # as much of a port as is needed
        proxy = self.proxy(endpoints=listening)
        proxy.startService()
        self.settle()
        done = proxy.stopService()
        self.assertEqual([port.closed for port in ports], [True, True])
        self.settle()
        self.assertIsNone(self.successResultOf(done))
        self.failureResultOf(proxy.started)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_in_a_program(self) -> None:
        """It is started and stopped by the service that it is part of."""
        program = MultiService()
        self.proxy().setServiceParent(program)
        program.startService()
        self.settle()
        done = program.stopService()
        self.settle()
        self.successResultOf(done)


class MemoryInputs:
    """Those of a session that does not end."""

    def end(self, refusal: Refusal) -> None:
        """It does not."""
