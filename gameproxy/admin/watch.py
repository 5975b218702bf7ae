"""All that watches one proxy, joined: the admin site, and the log for programs."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from gameproxy.admin.api import Api
from gameproxy.admin.http import AdminFactory
from gameproxy.admin.pages import Pages, Watched
from gameproxy.config import Config
from gameproxy.config_problems import ConfigurationError
from gameproxy.config_values import listening_endpoint
from gameproxy.interfaces import Entropy, Reactor
from gameproxy.json_log import STANDARD_OUTPUT, JsonLog
from gameproxy.keys import KeyFileError, read_secret
from gameproxy.listening import address_of
from gameproxy.operators import Operators


class Watch:
    """Watches as ``[admin]`` and ``[log]`` say; if they say nothing, there is nothing here.

    :ivar port: where the admin site listens, once it does.
    :raises ConfigurationError: the token cannot be read or made.
    """

    _log = Logger()

    def __init__(
        self, config: Config, reactor: Reactor, entropy: Entropy, proxy: Watched, orders: Operators
    ) -> None:
        self.port: IListeningPort | None = None
        self._config = config
        self._reactor = reactor
        self._entropy = entropy
        name = config.log.json_file
        path = None if name == STANDARD_OUTPUT else config.resolve(name)
        self._json_log = JsonLog(path) if name else None
        self._factory: AdminFactory | None = None
        if config.admin.listen:
            self._api = Api(orders, self._read_token(config), reactor)
            pages = Pages(proxy, self._api, reactor, self._run_in_thread)
            self._factory = AdminFactory(reactor, pages.answer)

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read the token that a changed configuration names.

        :return: has the admin API ask for that.
        :raises ConfigurationError: it cannot be read or made.
        """
        if self._factory is None:
            return lambda: None
        token = self._read_token(config)
        return lambda: self._api.reconfigure(token)

    def start(self) -> Deferred[None]:
        """Begin.

        :return: fires when it does; fails when the admin site cannot listen.
        :raises ConfigurationError: there is no such endpoint, or the log's file cannot be opened.
        """
        if self._json_log is not None:
            try:
                self._json_log.start()
            except OSError as error:
                raise ConfigurationError(f"log.json_file: {error}") from error
        if self._factory is None:
            return succeed(None)
        try:
            endpoint = listening_endpoint(self._reactor, self._config.admin.listen)
        except ValueError as error:
            raise ConfigurationError(f"admin.listen: {error}") from error
        return endpoint.listen(self._factory).addCallback(self._listens)

    async def stop(self) -> None:
        """Watch no more: last of all, so that how a proxy drains can be watched too."""
        if self.port is not None and self._factory is not None:
            closed = maybeDeferred(self.port.stopListening)
            closed.addErrback(lambda failure: self._log.failure("closing the admin site", failure))
            self._factory.close()
            self._api.flush()
            await closed
            self.port = None
        if self._json_log is not None:
            self._json_log.stop()

    def _listens(self, port: IListeningPort) -> None:
        self.port = port
        self._log.info("The admin site is at {address}.", address=address_of(port))

    def _run_in_thread(self, count: Callable[[], int]) -> Deferred[int]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), count)

    def _read_token(self, config: Config) -> bytes:
        path = config.resolve(config.admin.token_file)
        try:
            return read_secret(path, self._entropy).hex().encode("ascii")
        except KeyFileError as error:
            raise ConfigurationError(f"admin.token_file: {path} {error}") from error
