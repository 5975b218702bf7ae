"""The twist and twistd plugin: ``twist gameproxy --config FILE``."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from typing import cast

from twisted.application.service import IService
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet import reactor as _global_reactor
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from gameproxy.auth import SUPPORTED
from gameproxy.config import ConfigError, load
from gameproxy.interfaces import Reactor
from gameproxy.service import ConfigurationError, GameProxy

_log = Logger(namespace="gameproxy")
_reactor = cast(Reactor, _global_reactor)  # a program's own reactor has all that a proxy needs


class Options(UsageOptions, AuthOptionMixin):
    """The options of the plugin."""

    supportedInterfaces = SUPPORTED
    longdesc = "A front door for game servers: authenticates, places and relays their clients."
    optParameters = [["config", "c", "gameproxy.toml", "The configuration file (TOML)."]]


class Program(GameProxy):
    """A proxy that is a program: where it cannot start, the program says why in one line, and ends with status 1."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except (CannotListenError, ConfigurationError) as error:
            raise SystemExit(f"gameproxy: {error}") from error

    def startService(self) -> None:
        super().startService()
        self.started.addErrback(_cannot_start)


def makeService(options: Options) -> IService:
    """Make the service for twist.

    :raises SystemExit: the configuration cannot be used.
    """
    file = options["config"]
    try:
        return Program(load(file), _reactor, checkers=options.get("credCheckers", ()))
    except (ConfigError, ConfigurationError) as error:
        raise SystemExit(f"gameproxy: {file} cannot be used:\n{error}") from error


def _cannot_start(failure: Failure) -> None:
    _log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
    # twist and twistd have no status for what fails while the reactor runs.
    atexit.register(os._exit, 1)
    with suppress(ReactorNotRunning):
        _global_reactor.stop()
