"""The twist and twistd plugin: ``twist gameproxy --config FILE``."""

from __future__ import annotations

from typing import cast

from twisted.application.service import IService
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet import reactor as _global_reactor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from gameproxy.auth import SUPPORTED, PasswordFileError
from gameproxy.config import ConfigError, load
from gameproxy.interfaces import Reactor
from gameproxy.keys import KeyFileError
from gameproxy.service import ConfigurationError, GameProxy

_log = Logger(namespace="gameproxy")
_reactor = cast(Reactor, _global_reactor)  # a program's own reactor has all that a proxy needs


class Options(UsageOptions, AuthOptionMixin):
    """The options of the plugin."""

    supportedInterfaces = SUPPORTED
    longdesc = "A front door for game servers: authenticates, places and relays their clients."
    optParameters = [["config", "c", "gameproxy.toml", "The configuration file (TOML)."]]


def makeService(options: Options) -> IService:
    """Make the service for twist.

    :raises UsageError: the configuration cannot be used.
    """
    try:
        config = load(options["config"])
        proxy = GameProxy(config, _reactor, checkers=options.get("credCheckers", ()))
    except (ConfigError, ConfigurationError, KeyFileError, PasswordFileError) as error:
        raise UsageError(str(error)) from error
    proxy.started.addErrback(_cannot_start)
    return proxy


def _cannot_start(failure: Failure) -> None:
    _log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
    _global_reactor.stop()
