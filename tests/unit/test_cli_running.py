"""gameproxy.cli.running"""

from __future__ import annotations

import io
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.trial.unittest import SynchronousTestCase

from gameproxy import __version__
from gameproxy.cli.running import ProgramReactor, run_reactor


class ScriptedReactor:
    """A reactor whose run is a script.

    :param script: called in ``run``; when it returns the reactor has ended.
    """

    def __init__(self, script: Callable[[], None] = lambda: None) -> None:
        self._script = script
        self._running = False
        self._at_start: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], object]] = []

    def addSystemEventTrigger(
        self, phase: str, event: str, called: Callable[[], object], *args: object
    ) -> None:
        assert (phase, event) == ("before", "shutdown")
        self._at_end.append(called)

    def callWhenRunning(self, called: Callable[..., None], *args: object) -> None:
        if self._running:
            called(*args)
        else:
            self._at_start.append(lambda: called(*args))

    def run(self) -> None:
        self._running = True
        for called in self._at_start:
            called()
        self._script()

    def stop(self) -> None:
        if not self._at_end:
            raise ReactorNotRunning
        triggers, self._at_end = self._at_end, []
        for trigger in triggers:
            trigger()


class RunReactorTests(SynchronousTestCase):
    """From a coroutine to an exit status."""

    def run_with(self, main: Callable[[ProgramReactor], Any], reactor: ScriptedReactor) -> int:
        return run_reactor(main, cast(IReactorCore, reactor))

    def test_status(self) -> None:
        """What the command gives is the exit status."""

        async def main(reactor: ProgramReactor) -> int:
            return 7

        self.assertEqual(self.run_with(main, ScriptedReactor()), 7)

    def test_exception(self) -> None:
        """A command that raises has failed, and that is logged."""

        async def main(reactor: ProgramReactor) -> int:
            raise ZeroDivisionError

        self.assertEqual(self.run_with(main, ScriptedReactor()), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_status_of_interrupted(self) -> None:
        """A command that tidies up when it is interrupted still says how it went."""
        interrupted: Deferred[int] = Deferred()

        async def main(reactor: ProgramReactor) -> int:
            reactor.addSystemEventTrigger("before", "shutdown", lambda: interrupted.callback(3))
            return await interrupted

        reactor = ScriptedReactor(lambda: reactor.stop())
        self.assertEqual(self.run_with(main, reactor), 3)

    def test_interrupted(self) -> None:
        """A command that never comes to its end when it is interrupted has done nothing wrong."""

        async def main(reactor: ProgramReactor) -> int:
            return await Deferred()

        reactor = ScriptedReactor(lambda: reactor.stop())
        self.assertEqual(self.run_with(main, reactor), 0)


class ModuleTests(SynchronousTestCase):
    """``python -m gameproxy``."""

    def test_is_the_command(self) -> None:
        """It is the command, exit status and all."""
        self.patch(sys, "argv", ["gameproxy", "--version"])
        with redirect_stdout(io.StringIO()) as output:
            error = self.assertRaises(
                SystemExit, runpy.run_module, "gameproxy", run_name="__main__"
            )
        self.assertEqual(error.code, 0)
        self.assertEqual(output.getvalue(), f"gameproxy {__version__}\n")
