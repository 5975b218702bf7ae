"""A whole proxy that is reloaded, on a reactor in memory: what counts then, and what is as before when it fails"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory

from gameproxy import doors
from gameproxy.admission import TooFewDescriptors
from gameproxy.config import ConfigError, parse
from gameproxy.handshake import derive_server_key
from gameproxy.host import Host
from gameproxy.reasons import CloseReason
from gameproxy.relay import Relays
from gameproxy.reloading import DATABASE_PATIENCE, PORTS_PATIENCE
from gameproxy.service import GameProxy
from tests.authority import Authority
from tests.unit.test_service import GAME_PORT, SECRET, ServiceTestCase

BASE = f"""
[proxy]
listen = ["tcp:7777"]
max_sessions = 50
drain_grace = 10.0
[auth]
guests = true
ticket_keys = [{{ id = "web", algorithm = "HS256", file = "web.key" }}]
[tls]
listen = ["tcp:7443"]
certificate = "shown.pem"
key = "shown.key"
[proxy_protocol]
listen = ["tcp:7780"]
trusted = ["10.0.0.0/8"]
[limits.sessions_per_address]
mode = "enforce"
rate = 3
[[games]]
name = "chess"
command = ["chessd"]
capacity = 2
max_servers = 1
[[servers]]
id = "s1"
game = "echo"
host = "192.0.2.5"
port = {GAME_PORT}
capacity = 10
key_file = "s1.key"
"""


class ReloadTestCase(ServiceTestCase):
    """A proxy with all that can be reloaded, from a file."""

    def setUp(self) -> None:
        super().setUp()
        authority = Authority()
        authority.issue("play.example", purpose="server").write(self.folder, "shown")
        authority.issue("new.example", purpose="server").write(self.folder, "new")
        self.put("web.key", "w" * 40)
        self.put("s1.key", derive_server_key(SECRET, "s1").hex())
        self.file = self.put("gameproxy.toml", BASE)
        self.taken: set[int] = set()
        self.listenTCP = self.reactor.listenTCP
        self.reactor.listenTCP = self.listen  # type: ignore[method-assign]  # ports may be in use here

    def put(self, name: str, text: str) -> Path:
        """A file that others may not read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def listen(self, port: int, factory: ServerFactory, *args: Any, **kwargs: Any) -> Any:
        """Listen at a port, unless it is in use."""
        if port in self.taken:
            raise CannotListenError(None, port, OSError("in use"))
        self.taken.add(port)
        opened: Any = self.listenTCP(port, factory, *args, **kwargs)
        opened.stopListening = lambda: self.taken.discard(port)
        return opened

    def running(self, text: str = BASE, **arguments: Any) -> GameProxy:
        """A proxy that serves."""
        self.file.write_text(text)
        arguments.setdefault("endpoints", None)
        threads = self.reactor.threads
        host = Host(database_threads=threads, ensure_descriptors=ensure_descriptors)  # type: ignore[arg-type]
        arguments.setdefault("host", host)
        return self.started(parse(text, self.folder), file=self.file, **arguments)

    def reload(self, proxy: GameProxy, *edits: tuple[str, str], more: str = "") -> list[str]:
        """Edit the file and reload: what has changed."""
        self.edit(*edits, more=more)
        done = proxy.reload()
        self.settle()
        return [str(change) for change in self.successResultOf(done)]

    def problems(self, proxy: GameProxy) -> dict[str, str]:
        """Reload, which must fail: what is wrong, by its place."""
        done = proxy.reload()
        self.settle()
        error: Any = self.failureResultOf(done, ConfigError).value
        return dict(error.problems)

    def edit(self, *edits: tuple[str, str], more: str = "") -> None:
        """Write the file anew."""
        text = BASE
        for old, new in edits:
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        self.file.write_text(text + more)

    def numbers(self, proxy: GameProxy) -> list[int]:
        """The ports at which it listens, as it believes, and as the system does."""
        numbers = [port.getHost().port for port in proxy.ports]
        self.assertEqual(sorted(numbers), sorted(self.taken - {GAME_PORT}))
        return numbers


class AppliedTests(ReloadTestCase):
    """What counts from then on"""

    def test_unchanged(self) -> None:
        """Where nothing has changed nothing does."""
        proxy = self.running()
        before = self.numbers(proxy), list(proxy.ports)
        self.assertEqual(self.reload(proxy), [])
        self.assertEqual((self.numbers(proxy), list(proxy.ports)), before)

    def test_all_at_once(self) -> None:
        """Listeners, games, servers, keys, limits and times change together, and the session that is there goes on."""
        proxy, server = self.running(), self.game_server()
        visitor = self.visit(game="echo")
        self.assertEqual(visitor.happened, ["welcome"])
        self.put("s2.key", bytes(range(1, 33)).hex())
        changes = self.reload(
            proxy,
            ('["tcp:7777"]', '["tcp:7777", "tcp:7778"]'),
            ('listen = ["tcp:7443"]', ""),
            ("guests = true", "guests = false\ntimeout = 9.0"),
            ('"s1.key"', '"s2.key"'),
            ("rate = 3", "rate = 5"),
            ("max_sessions = 50", "max_sessions = 60"),
            ("10.0.0.0/8", "192.0.2.7"),
            ('name = "chess"', 'name = "go"'),
        )
        self.assertEqual(
            [change.split(":")[0] for change in changes],
            [
                "proxy.listen",
                "proxy.max_sessions",
                "auth.timeout",
                "auth.guests",
                "limits.sessions_per_address.rate",
                "tls.listen",
                "proxy_protocol.trusted",
                "games.chess",
                "games.go",
                "servers.s1.key_file",
            ],
        )
        self.assertEqual(self.numbers(proxy), [7777, 7778, 7780])
        self.assertEqual((proxy.games, proxy.auth_timeout), (("go", "echo"), 9.0))
        self.assertEqual(proxy.sessions.limits()["max_sessions"], 60)
        visitor.send(b"\x10still here")
        self.settle()
        self.assertEqual(visitor.happened, ["welcome", b"\x10still here"])
        self.assertEqual(self.visit(name="eve", game="echo").happened, ["auth_failed"])
        self.assertEqual(self.problem_of(proxy.farm.start_server("chess")), "unknown_game")
        self.assertEqual(len(server.players), 1)

    def problem_of(self, result: Any) -> str:
        """The reason of a refusal."""
        self.settle()
        reason: CloseReason = self.failureResultOf(result).value.reason
        return reason.value

    def test_certificates(self) -> None:
        """The files of [tls] are read again whether or not they have other names."""
        proxy = self.running()
        before = proxy._credentials._contexts
        authority = Authority()
        authority.issue("next.example", purpose="server").write(self.folder, "shown")
        self.assertEqual(
            self.reload(proxy),
            [
                'tls.certificate: "shown.pem" -> "shown.pem", written anew',
                'tls.key: "shown.key" -> "shown.key", written anew',
            ],
        )
        self.assertIsNot(proxy._credentials._contexts, before)
        self.assertEqual(self.reload(proxy), [])
        self.reload(proxy, ("shown.pem", "new.pem"), ("shown.key", "new.key"))
        names = [
            own.chain[0].subject.rfc4514_string() for _, own in proxy._credentials._contexts.own
        ]
        self.assertIn("new.example", names[0])

    def test_keys(self) -> None:
        """Keys that were written anew are told, and count; one that is of no use leaves them to be told of later."""
        proxy = self.running()
        self.put("s1.key", bytes(range(1, 33)).hex())
        self.put("web.key", "short")
        self.assertEqual(list(self.problems(proxy)), ["auth.ticket_keys[0].file"])
        self.put("web.key", "v" * 40)
        self.assertEqual(
            [change.split(":")[0] for change in self.reload(proxy)],
            ["auth.ticket_keys.web.file", "servers.s1.key_file"],
        )
        self.assertEqual(proxy._keys.key_for("s1"), bytes(range(1, 33)))

    def test_endpoints_of_a_program(self) -> None:
        """What a program gave in place of [proxy] listen stays, whatever stands there."""
        proxy = self.running(endpoints=[TCP4ServerEndpoint(self.reactor, 7000)])
        self.assertEqual(self.numbers(proxy), [7000, 7443, 7780])
        self.reload(proxy, ('["tcp:7777"]', '["tcp:7778"]'), ("tcp:7443", "tcp:7444"))
        self.assertEqual(self.numbers(proxy), [7000, 7444, 7780])

    def test_objects(self) -> None:
        """A program may give the configuration itself."""
        proxy = self.running()
        config = parse(BASE.replace("rate = 3", "rate = 4"), self.folder)
        (change,) = self.successResultOf(self.later(proxy.reload(config)))
        self.assertEqual(change.place, "limits.sessions_per_address.rate")

    def later(self, result: Any) -> Any:
        self.settle()
        return result


def ensure_descriptors(sessions: int) -> None:
    """There are enough for a thousand sessions."""
    if sessions > 1000:
        raise TooFewDescriptors("not so many descriptors")


class SlowTests(ReloadTestCase):
    """Ports that take their time"""

    def test_never(self) -> None:
        """If one does not open in time those that did are closed again; if it does after all, so is that one."""
        proxy = self.running()
        opening: list[Deferred[Any]] = []

        class Slow:
            def listen(self, factory: object) -> Deferred[Any]:
                opening.append(Deferred())
                return opening[-1]

        fast = doors.listening_endpoint

        def choose(reactor: Any, description: str) -> Any:
            return Slow() if description == "slow:1" else fast(reactor, description)

        self.patch(doors, "listening_endpoint", choose)
        before = self.numbers(proxy)
        self.edit(('["tcp:7777"]', '["tcp:7777", "tcp:7778", "slow:1"]'))
        done = proxy.reload()
        self.settle()
        self.assertIn(7778, self.taken)
        self.assertNoResult(done)
        self.settle(PORTS_PATIENCE)
        self.failureResultOf(done, ConfigError)
        self.assertEqual(self.numbers(proxy), before)
        self.assertTrue(opening)

    def test_database_that_hangs(self) -> None:
        """It is waited for only so long; when it has done it after all, that is undone."""
        proxy = self.running()
        threads = self.reactor.threads
        self.edit(("capacity = 10", "capacity = 20"))
        threads.held = True
        done = proxy.reload()
        self.settle()
        self.assertNoResult(done)
        self.settle(DATABASE_PATIENCE)
        error: Any = self.failureResultOf(done, ConfigError).value
        self.assertIn("within 6 s", str(error))
        threads.held = False
        threads.run()
        self.settle()
        (server,) = self.successResultOf(self.later(proxy.farm.servers()))
        self.assertEqual((server["id"], server["capacity"]), ("s1", 10))

    def later(self, result: Any) -> Any:
        self.settle()
        return result

    def test_stopped_meanwhile(self) -> None:
        """A proxy that is stopped while a port is being opened stops, and has no port left."""
        proxy = self.running()
        opening: Deferred[Any] = Deferred()
        self.patch(doors, "listening_endpoint", lambda reactor, description: Late(opening))
        self.edit(('["tcp:7777"]', '["tcp:7777", "tcp:7778"]'))
        done = proxy.reload()
        stopped = proxy.stopService()
        self.settle()
        self.assertIsNone(self.successResultOf(stopped))
        opening.callback(self.reactor.listenTCP(7778, ServerFactory()))
        self.settle()
        self.failureResultOf(done, ConfigError)
        self.assertEqual(self.taken, set())


class Late:
    """An endpoint that listens when a test wants it."""

    def __init__(self, opening: Deferred[Any]) -> None:
        self._opening = opening

    def listen(self, factory: object) -> Deferred[Any]:
        return self._opening


Break = Callable[["RolledBackTests"], None]


def edited(*edits: tuple[str, str], more: str = "") -> Break:
    """Write that into the file."""
    return lambda test: test.edit(*edits, more=more)


def with_file(name: str, text: str) -> Break:
    """Change one of the other files."""
    return lambda test: void(test.put(name, text))


def void(_: object) -> None: ...


class RolledBackTests(ReloadTestCase):
    """What cannot be: then all is exactly as before"""

    def setUp(self) -> None:
        super().setUp()
        self.taken.add(9)

    def numbers(self, proxy: GameProxy) -> list[int]:
        return [port.getHost().port for port in proxy.ports]

    def other_key(self) -> None:
        """The key is that of another certificate."""
        (self.folder / "shown.key").write_bytes((self.folder / "new.key").read_bytes())

    def lock(self) -> None:
        """The database is locked by somebody, and a server has moved."""
        self.edit((f"port = {GAME_PORT}", "port = 5001"), ('"tcp:7777"', '"tcp:7778"'))
        self.reactor.threads.locked = True

    def stop(self) -> None:
        """The proxy is being stopped, as soon as the database is asked."""
        self.edit((f"port = {GAME_PORT}", "port = 5001"), ('"tcp:7777"', '"tcp:7778"'))
        self.reactor.threads.before = lambda writes: self.hinder()

    def hinder(self) -> None:
        self.proxy_here.hindrance = "draining"

    def state(self, proxy: GameProxy) -> list[object]:
        """All that a reload changes, as far as it can be seen."""
        relays: Relays = proxy._relays
        return [
            list(proxy.ports),
            sorted(self.taken),
            proxy.games,
            proxy.auth_timeout,
            proxy.sessions.limits(),
            proxy._config,
            proxy._reloading.config,
            proxy._dialling,
            proxy._credentials._contexts,
            proxy.authenticator._portal,
            proxy.limits.addresses._most,
            (relays._section, relays._terms),
            proxy.farm._table,
            proxy._keys.key_for("s1"),
            proxy._doors._proxied._trusted,
        ]

    def check(self, spoil: Break, told: str) -> None:
        """What is wrong is told, nothing is different, the session that is there goes on, and others can come."""
        proxy = self.proxy_here = self.running()
        self.game_server()
        visitor = self.visit(game="echo")
        before = self.state(proxy)
        spoil(self)
        found = self.problems(proxy)
        self.assertIn(told, str(found))
        self.assertEqual(self.state(proxy), before)
        visitor.send(b"\x10still here")
        self.settle()
        self.assertEqual(visitor.happened, ["welcome", b"\x10still here"])
        self.reactor.threads.locked = False
        self.reactor.threads.before = lambda writes: None
        proxy.hindrance = ""
        self.assertEqual(self.visit(name="eve", game="echo").happened, ["welcome"])


FAULTS: dict[str, tuple[Break, str]] = {
    "syntax": (edited(more="\n["), "not TOML"),
    "unknown key": (edited(("rate = 3", "rate = 3\nrat = 3")), "unknown key"),
    "no file": (lambda test: test.file.unlink(), "cannot be read"),
    "fixed": (edited(("max_sessions", 'database = "sqlite:///o.db"\nmax_sessions')), "restart"),
    "another secret": (with_file("farm.secret", "ab" * 32), "another secret"),
    "no secret": (lambda test: (test.folder / "farm.secret").unlink(), "cannot be read"),
    "server's key": (with_file("s1.key", "no"), "hexadecimal"),
    "ticket key": (with_file("web.key", "short"), "32 bytes"),
    "no ticket key": (edited(("web.key", "none.key")), "cannot be read"),
    "passwords": (edited(("guests = true", 'password_file = "web.key"')), "line 1"),
    "certificate": (with_file("shown.pem", "no"), "no certificates"),
    "certificate's key": (lambda test: test.other_key(), "not the key"),
    "endpoint": (edited(('["tcp:7777"]', '["tcp:7777", "tc:1"]')), "no endpoint"),
    "socket of systemd": (
        edited(('["tcp:7777"]', '["tcp:7778", "systemd:domain=INET:index=0"]')),
        "restart",
    ),
    "port in use": (edited(('"tcp:7777"', '"tcp:7778", "tcp:9"'), ("tcp:7443", "tcp:8")), "in use"),
    "descriptors": (edited(("sessions = 50", "sessions = 900000")), "descriptors"),
    "database": (lambda test: test.lock(), "database"),
    "stopped": (lambda test: test.stop(), "draining"),
}


def check_of(spoil: Break, told: str) -> Callable[[RolledBackTests], None]:
    """A test of one fault."""

    def test(self: RolledBackTests) -> None:
        self.check(spoil, told)

    test.__doc__ = RolledBackTests.check.__doc__
    return test


for _name, _fault in FAULTS.items():
    setattr(RolledBackTests, f"test_{re.sub('[^a-z]+', '_', _name)}", check_of(*_fault))
