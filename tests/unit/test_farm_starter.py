"""How a game server is started: its end is noticed at once, and its files do not pile up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import GameConfig
from gameproxy.farm import GameServerStarter
from gameproxy.farm.starter import LOGS_KEPT
from tests.farm_fixture import FakeProcesses


class Reactor:
    """Starts nothing.

    :ivar protocols: those of the processes that were asked for, in order.
    :ivar has_ended: whether the processes have, so that nothing can be written to them.
    :ivar said: what was said to the processes.
    """

    def __init__(self) -> None:
        self.protocols: list[Any] = []
        self.has_ended = False
        self.said: list[bytes | None] = []

    def spawnProcess(self, protocol: Any, *args: Any, **kwargs: Any) -> Any:
        self.protocols.append(protocol)
        return self

    pid = 4711

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        if self.has_ended:
            raise KeyError(descriptor)
        self.said.append(data)

    def closeChildFD(self, descriptor: int) -> None:
        self.said.append(None)


class StarterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.files = self.folder / "farm.servers"
        self.reactor = Reactor()
        self.count = 0
        self.ended: list[str] = []
        self.starter = GameServerStarter(
            self.reactor,
            FakeProcesses(),
            self.folder,
            self.folder / "farm.db",
            {},
            lambda server: b"k" * 32,
        )

    def start(self, game: str = "chess") -> str:
        """A game server whose output is one second newer than that of the one before."""
        self.count += 1
        server = f"{game}-{self.count:06x}"
        config = GameConfig(name=game, command=("x",), capacity=1, max_servers=999)
        self.launch = self.starter.start(server, config, lambda: self.ended.append(server))
        os.utime(self.files / f"{server}.log", (self.count, self.count))
        return server

    def logs(self, game: str = "chess") -> list[str]:
        names = sorted(path.stem for path in self.files.glob("*.log"))
        return [name for name in names if name.rpartition("-")[0] == game]

    def test_end(self) -> None:
        """Who asked for the start is called when the process ends, however it does."""
        first, second = self.start(), self.start()
        self.assertEqual(self.ended, [])
        self.reactor.protocols[1].processEnded(Failure(ProcessTerminated(signal=9)))
        self.assertEqual(self.ended, [second])
        self.reactor.protocols[0].processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.ended, [second, first])

    def test_answers(self) -> None:
        """The process gets one byte when it may run, and the end of the stream alone when it may not. One that has
        ended meanwhile gets nothing."""
        self.start()
        self.assertEqual(self.reactor.said, [])
        self.launch.answer(True)
        self.assertEqual(self.reactor.said, [b"\n", None])
        self.start()
        self.launch.answer(False)
        self.assertEqual(self.reactor.said, [b"\n", None, None])
        self.start()
        self.reactor.has_ended = True
        self.launch.answer(True)
        self.assertEqual(self.reactor.said, [b"\n", None, None])

    def test_old_logs_go(self) -> None:
        """Of the servers of a game that have ended the newest 50 logs stay when another starts; those of the servers
        that run stay, however old, and those of other games, also when the one's name begins with the other's."""
        others = [self.start("chess-blitz"), self.start("ches")]
        for server in others:
            self.starter.clean_up(server)
        running = self.start()
        ended = [self.start() for _ in range(LOGS_KEPT + 7)]
        for server in ended:
            self.starter.clean_up(server)
        (self.files / "chess-notes.txt").write_text("somebody's own")
        self.assertEqual(len(self.logs()), LOGS_KEPT + 8)
        new = self.start()
        self.assertEqual(self.logs(), [running, *ended[7:], new])
        self.assertEqual([*self.logs("ches"), *self.logs("chess-blitz")], others[::-1])
        self.assertTrue((self.files / "chess-notes.txt").exists())

    def lines(self) -> list[str]:
        """What is logged from now on as an error."""
        lines: list[str] = []

        class Lines:
            def error(self, line: str, **_: object) -> None:
                lines.append(line)

        self.patch(GameServerStarter, "_log", Lines())
        return lines

    def test_a_log_that_goes_meanwhile(self) -> None:
        """One that was seen and is not there any more, as when two proxies start at the same time, is no trouble."""
        lines = self.lines()
        self.starter.clean_up(self.start())
        (self.files / "chess-00ffff.log").symlink_to("gone")
        server = self.start()
        self.assertIn(server, self.logs())
        self.assertEqual(lines, [])

    def test_logs_that_cannot_be_removed(self) -> None:
        """A game server starts all the same, and the log says so."""
        lines = self.lines()
        for _ in range(LOGS_KEPT + 1):
            self.starter.clean_up(self.start())
        oldest = self.files / f"{self.logs()[0]}.log"
        oldest.unlink()
        oldest.mkdir()
        os.utime(oldest, (0, 0))
        server = self.start()
        self.assertIn(server, self.logs())
        self.assertEqual(len(lines), 1, lines)
