"""The twist and twistd plugin: ``twist gameproxy --config FILE``."""

from __future__ import annotations

import atexit
import gc
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from twisted.application.service import IService
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet import reactor as _global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from gameproxy.auth import SUPPORTED
from gameproxy.capabilities import give_up_ambient
from gameproxy.config import ConfigError, load
from gameproxy.interfaces import Reactor
from gameproxy.service import ConfigurationError, GameProxy
from gameproxy.supervisor import READY, STOPPING, tell_supervisor

_log = Logger(namespace="gameproxy")
_reactor = cast(Reactor, _global_reactor)  # a program's own reactor has all that a proxy needs


class Options(UsageOptions, AuthOptionMixin):
    """The options of the plugin."""

    supportedInterfaces = SUPPORTED
    longdesc = "A front door for game servers: authenticates, places and relays their clients."
    optParameters = [["config", "c", "gameproxy.toml", "The configuration file (TOML)."]]


class Program(GameProxy):
    """A proxy that is a program: where it cannot start, the program says why in one line, and ends with status 1.

    SIGHUP has it reload. A second SIGTERM or SIGINT, while it drains, hastens that.
    """

    _reloads = 0

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except (CannotListenError, ConfigurationError) as error:
            raise SystemExit(f"gameproxy: {error}") from error
        if give_up_ambient():
            _log.info("Capabilities are given up: nothing needs them from here on.")

    def startService(self) -> None:
        super().startService()
        self.started.addCallbacks(_serves, _cannot_start)
        _on_signal(signal.SIGHUP, self.hang_up)

    def stopService(self) -> Deferred[None]:
        stopped = super().stopService()
        _tell(STOPPING)
        # The reactor would be told to stop, which it does already.
        for again in (signal.SIGINT, signal.SIGTERM):
            _on_signal(again, self.hasten)
        return stopped

    def hang_up(self) -> None:
        """Reload. Of those that ask while it is done, one has it done again: the file may have changed meanwhile."""
        if self._reloads < 2:
            self._reloads += 1
            self.reload().addErrback(_not_reloaded).addCallback(self._has_reloaded)

    def _has_reloaded(self, _: object) -> None:
        self._reloads -= 1


def makeService(options: Options) -> IService:
    """Make the service for twist.

    :raises SystemExit: the configuration cannot be used.
    """
    file = options["config"]
    try:
        return Program(
            load(file),
            _reactor,
            checkers=options.get("credCheckers", ()),
            file=Path(file).absolute(),
        )
    except (ConfigError, ConfigurationError) as error:
        raise SystemExit(f"gameproxy: {file} cannot be used:\n{error}") from error


def _serves(_: object) -> None:
    """From here on the garbage collector looks through sessions only, and not through all that the program is made of,
    which stays: that is half of the time for which everybody who plays would have to wait."""
    gc.collect()
    gc.freeze()
    _tell(READY)


def _tell(fact: str) -> None:
    try:
        tell_supervisor(os.environ, fact)
    except OSError as error:
        _log.warn(
            "Whoever started this program cannot be told {fact}: {error}", fact=fact, error=error
        )


def _on_signal(number: signal.Signals, act: Callable[[], None]) -> None:
    signal.signal(number, lambda number, frame: _reactor.callFromThread(act))


def _not_reloaded(failure: Failure) -> None:
    """It is logged; what is no ConfigError is a fault."""
    if not failure.check(ConfigError):
        _log.failure("while reloading", failure)


def _cannot_start(failure: Failure) -> None:
    _log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
    # twist and twistd have no status for what fails while the reactor runs.
    atexit.register(os._exit, 1)
    with suppress(ReactorNotRunning):
        _global_reactor.stop()
