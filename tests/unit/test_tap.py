"""gameproxy.tap: the plugin for twist and twistd"""

from __future__ import annotations

import atexit
import gc
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.application.service import IServiceMaker
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gameproxy import tap
from gameproxy.config import ConfigError
from gameproxy.service import ConfigurationError, GameProxy

GOOD = """
[[servers]]
id = "s1"
game = "echo"
host = "127.0.0.1"
port = 5000
capacity = 10
"""


class StoppingReactor:
    """Counts how often it is asked to stop, and may be stopping already."""

    def __init__(self, stopping: bool = False) -> None:
        self.stopping = stopping
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1
        if self.stopping:
            raise ReactorNotRunning


class TapTest(SynchronousTestCase):
    """gameproxy.tap"""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def service(self, text: str | None) -> Any:
        """The service for a configuration file with this text, or for none."""
        file = self.folder / "gameproxy.toml"
        if text is not None:
            file.write_text(text)
        options = tap.Options()
        options.parseOptions(["--config", str(file)])
        return tap.makeService(options)

    def why_not(self, text: str | None) -> str:
        """What is said when there can be no service."""
        return str(self.assertRaises(SystemExit, self.service, text))

    def test_service(self) -> None:
        """A configuration makes a proxy; nothing is listened at before it is started."""
        proxy = self.service(GOOD)
        self.assertIsInstance(proxy, GameProxy)
        self.assertEqual(proxy.ports, [])
        self.assertFalse(proxy.running)

    def test_options(self) -> None:
        """The file has a default name; other options are wrong usage; --auth takes checkers."""
        options = tap.Options()
        options.parseOptions([])
        self.assertEqual(options["config"], "gameproxy.toml")
        self.assertRaises(UsageError, tap.Options().parseOptions, ["--bogus"])
        options.parseOptions(["--auth", "memory:ann:secret"])
        (checker,) = options["credCheckers"]
        self.assertIsInstance(checker, InMemoryUsernamePasswordDatabaseDontUse)

    def test_bad_configurations(self) -> None:
        """What is wrong with a configuration, or with a file that it names, ends the program with a plain text that
        names the file and the place."""
        for text, part in (
            (None, "No such file"),
            ("[proxy", "not TOML"),
            (GOOD + "bogus = 1", "servers[0].bogus: unknown key"),
            ('[proxy]\nsecret_file = "no/such/secret"' + GOOD, "proxy.secret_file: "),
            ('[auth]\npassword_file = "no/such/passwords"' + GOOD, "auth.password_file: "),
        ):
            said = self.why_not(text)
            self.assertIn(part, said)
            self.assertIn("gameproxy.toml", said)
            self.assertNotIn("Traceback", said)

    def test_cannot_listen(self) -> None:
        """An address that cannot be listened at, or not be read, ends the program with a plain text."""
        for fault in (CannotListenError("", 7777, OSError("in use")), ConfigurationError("no")):
            proxy = self.service(GOOD)
            with patch.object(GameProxy, "privilegedStartService", side_effect=fault):
                said = str(self.assertRaises(SystemExit, proxy.startService))
            self.assertEqual(said, f"gameproxy: {fault}")

    def test_cannot_start(self) -> None:
        """When the farm cannot be opened, the program says why, stops, and ends with a status that tells."""
        for reactor in (StoppingReactor(), StoppingReactor(stopping=True)):
            with (
                patch.object(tap, "_global_reactor", reactor),
                patch.object(atexit, "register") as register,
            ):
                tap._cannot_start(Failure(OSError("no database")))
            self.assertEqual(reactor.stops, 1)
            self.assertEqual(register.call_args.args[1:], (1,))

    def test_start(self) -> None:
        """It is told when the farm cannot be opened."""
        proxy = self.service(GOOD)
        heard: list[Failure] = []
        with (
            patch.object(GameProxy, "startService"),
            patch.object(tap, "_cannot_start", heard.append),
            patch.object(signal, "signal"),
        ):
            proxy.startService()
        proxy.started.errback(OSError())
        self.assertEqual(len(heard), 1)

    def test_signals(self) -> None:
        """SIGHUP reloads; SIGTERM and SIGINT are the reactor's until they have stopped it, and hasten that then."""
        proxy = self.service(GOOD)
        handlers: dict[int, Any] = {}
        called: list[str] = []
        with (
            patch.object(signal, "signal", handlers.__setitem__),
            patch.object(tap, "_reactor") as reactor,
            patch.object(GameProxy, "startService"),
            patch.object(GameProxy, "stopService"),
            patch.object(GameProxy, "hasten", lambda self: called.append("hasten")),
            patch.object(tap.Program, "hang_up", lambda self: called.append("hang up")),
        ):
            reactor.callFromThread = lambda act: act()
            proxy.startService()
            self.assertEqual(list(handlers), [signal.SIGHUP])
            proxy.stopService()
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                handlers[number](number, None)
        self.assertEqual(called, ["hang up", "hasten", "hasten"])

    def test_supervisor(self) -> None:
        """Whoever started the program is told when clients are served, and when they are not any more; that somebody
        cannot be told does not keep it from that."""
        proxy = self.service(GOOD)
        told: list[str] = []

        def tell(environment: object, fact: str) -> None:
            told.append(fact)
            raise OSError("nobody listens")

        with (
            patch.object(signal, "signal"),
            patch.object(tap, "tell_supervisor", tell),
            patch.object(GameProxy, "startService"),
            patch.object(GameProxy, "stopService"),
        ):
            proxy.startService()
            self.assertEqual(told, [])
            self.addCleanup(gc.unfreeze)
            proxy.started.callback(None)
            self.assertEqual(told, ["READY=1"])
            proxy.stopService()
        self.assertEqual(told, ["READY=1", "STOPPING=1"])

    def test_garbage_collector(self) -> None:
        """Once clients are served it looks through what comes then, and not through what the program is made of."""
        proxy = self.service(GOOD)
        with (
            patch.object(signal, "signal"),
            patch.object(tap, "tell_supervisor"),
            patch.object(GameProxy, "startService"),
        ):
            proxy.startService()
        self.addCleanup(gc.unfreeze)
        gc.unfreeze()  # what other tests have frozen
        proxy.started.callback(None)
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertLess(len(gc.get_objects()), 10_000)

    def test_capabilities(self) -> None:
        """They are given up when the ports are open and the kernel's program is loaded."""
        proxy = self.service(GOOD)
        done: list[str] = []
        with (
            patch.object(GameProxy, "privilegedStartService", lambda self: done.append("start")),
            patch.object(tap, "give_up_ambient", lambda: done.append("give up")),
        ):
            proxy.privilegedStartService()
        self.assertEqual(done, ["start", "give up"])

    def test_hang_up(self) -> None:
        """Of many who ask while it is reloaded, one has it done again; what fails is logged by whoever reloads, faults
        here."""
        proxy = self.service(GOOD)
        asked: list[Deferred[Any]] = []
        with patch.object(GameProxy, "reload", lambda self: asked.append(Deferred()) or asked[-1]):
            for _ in range(5):
                proxy.hang_up()
            self.assertEqual(len(asked), 2)
            asked[0].errback(ConfigError([]))
            proxy.hang_up()
            proxy.hang_up()
            self.assertEqual(len(asked), 3)
            asked[1].errback(ZeroDivisionError())
            asked[2].callback([])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_file(self) -> None:
        """It knows its file, wherever the program's folder will be."""
        proxy = self.service(GOOD)
        self.assertEqual(proxy.file, (self.folder / "gameproxy.toml").absolute())

    def test_plugin(self) -> None:
        """twist and twistd find it."""
        names = [maker.tapname for maker in getPlugins(IServiceMaker)]
        self.assertEqual(names.count("gameproxy"), 1)
