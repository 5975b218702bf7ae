"""gameproxy.reloading: all or nothing, whatever fails. The rooms are a test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import AuthConfig, Config, ConfigError, ServerConfig
from gameproxy.config_problems import ConfigurationError
from gameproxy.reloading import PATIENCE, Reloading

ONE = ServerConfig(id="s1", game="go", host="192.0.2.1", port=1, capacity=1)
BEFORE = Config(servers=(ONE,))
AFTER = Config(auth=AuthConfig(timeout=7.0), servers=(ONE.model_copy(update={"port": 2}),))
STEPS = ("fixed", "first room", "second room", "ports", "database", "stopped meanwhile")


@dataclass
class World:
    """Rooms, ports and a database, each of which may fail.

    :ivar failing: the steps that do.
    :ivar done: what was done that can be seen from outside, in order.
    :ivar opening: what the ports wait for, if they do.
    :ivar listed: what the database has.
    """

    failing: Sequence[str] = ()
    done: list[str] = field(default_factory=list)
    opening: Deferred[None] | None = None
    hindrance: str = ""
    listed: Sequence[ServerConfig] = BEFORE.servers
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        rooms = [self.room("first room"), self.room("second room")]
        self.reloading = Reloading(
            BEFORE,
            None,
            rooms,
            self.open_ports,
            self.list_servers,
            lambda: self.hindrance,
            self.clock,
        )

    def room(self, name: str) -> Callable[[Config], Callable[[], None]]:
        """A room that notes what is put in place in it."""

        def prepare(config: Config) -> Callable[[], None]:
            if name in self.failing:
                raise ConfigurationError(f"{name}: cannot\n{name} too: cannot either")
            return lambda: self.done.append(name)

        return prepare

    async def open_ports(self, config: Config) -> World:
        if self.opening is not None:
            await self.opening
        if "ports" in self.failing:
            raise ConfigError([("proxy.listen[0]", "in use")])
        self.done.append("opened")
        return self

    def use(self) -> None:
        self.done.append("used")

    def give_up(self) -> None:
        self.done.remove("opened")

    def list_servers(self, servers: Sequence[ServerConfig]) -> Deferred[None]:
        if "stopped meanwhile" in self.failing:
            self.hindrance = "draining"
        if "database" in self.failing:
            return fail(OSError("locked"))
        self.listed = servers
        return succeed(None)


class ReloadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "gameproxy.reloading.Reloading":
            self.lines.append(formatEvent(event) or "")

    def changed(self, *failing: str) -> Config:
        """The changed configuration; where the first step is to fail, with what is fixed."""
        return AFTER.model_copy(update={"folder": Path("/else")}) if "fixed" in failing else AFTER

    def test_whole(self) -> None:
        """Everything is put in place, in order, and then clients are taken in; what has changed is told and logged."""
        world = World()
        changes = self.successResultOf(world.reloading.reload(AFTER))
        told = ["auth.timeout: 5.0 -> 7.0", "servers.s1.port: 1 -> 2"]
        self.assertEqual([str(change) for change in changes], told)
        self.assertEqual(world.done, ["opened", "first room", "second room", "used"])
        self.assertIs(world.reloading.config, AFTER)
        self.assertEqual(self.lines[:2], [f"Reloaded: {line}" for line in told])
        self.assertEqual(self.successResultOf(world.reloading.reload(AFTER)), [])

    def test_each_step_fails(self) -> None:
        """Whichever of the steps fails, and whichever others would too, nothing is different, and a later reload that
        nothing hinders is done."""
        for chosen in product((True, False), repeat=len(STEPS)):
            failing = [step for step, fails in zip(STEPS, chosen, strict=True) if fails]
            if not failing:
                continue
            world = World(failing)
            with self.subTest(failing=failing):
                error = self.failureResultOf(
                    world.reloading.reload(self.changed(*failing)), ConfigError
                ).value
                self.assertTrue(error.problems)
                self.assertEqual(world.done, [])
                self.assertIs(world.reloading.config, BEFORE)
                self.assertIs(world.listed, BEFORE.servers)
                world.failing, world.hindrance = (), ""
                self.assertEqual(len(self.successResultOf(world.reloading.reload(AFTER))), 2)
                self.assertEqual(world.done, ["opened", "first room", "second room", "used"])

    def test_all_problems(self) -> None:
        """What the rooms have to say is told together, each with its place."""
        world = World(["first room", "second room", "ports"])
        error: Any = self.failureResultOf(world.reloading.reload(AFTER)).value
        places = ["first room", "first room too", "second room", "second room too"]
        self.assertEqual([place for place, _ in error.problems], places)
        self.assertIn("first room: cannot; first room too: cannot either; second", self.lines[-1])

    def test_database_is_not_asked(self) -> None:
        """Where no listed server has changed the database may be out of order."""
        world = World(["database"])
        config = AFTER.model_copy(update={"servers": BEFORE.servers})
        self.assertEqual(len(self.successResultOf(world.reloading.reload(config))), 1)

    def test_ports_that_never_open(self) -> None:
        """They are waited for only so long."""
        world = World(opening=Deferred())
        done = world.reloading.reload(AFTER)
        world.clock.advance(PATIENCE / 2 - 0.1)
        self.assertNoResult(done)
        world.clock.advance(0.2)
        self.failureResultOf(done, ConfigError)
        self.assertEqual(world.done, [])

    def test_one_after_the_other(self) -> None:
        """A reload that is asked for during another begins when that is over; it sees what that has changed. Who stops
        to wait does not stop it."""
        world = World(opening=Deferred())
        assert world.opening is not None
        first, second, third = (world.reloading.reload(one) for one in (AFTER, AFTER, BEFORE))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        world.opening.callback(None)
        self.assertEqual(self.successResultOf(second), [])
        self.assertEqual(len(self.successResultOf(third)), 2)
        self.assertIs(world.reloading.config, BEFORE)

    def test_files(self) -> None:
        """Without a file there is nothing to read; a bad one is told with what is wrong with it."""
        world = World()
        self.failureResultOf(world.reloading.reload(), ConfigError)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "gameproxy.toml"
            file.write_text("[auth]\ntimeout = 0\n")
            world.reloading._file = file
            error: Any = self.failureResultOf(world.reloading.reload(), ConfigError).value
        self.assertEqual([place for place, _ in error.problems], ["games", "auth.timeout"])

    def test_faults(self) -> None:
        """A room with a fault of its own changes nothing either."""

        def broken(config: Config) -> Callable[[], None]:
            raise ZeroDivisionError("no")

        world = World()
        world.reloading._rooms = (*world.reloading._rooms, broken)
        self.failureResultOf(world.reloading.reload(AFTER), ZeroDivisionError)
        self.assertEqual(world.done, [])
