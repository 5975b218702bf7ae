"""Reloading: a changed configuration is put in place as a whole, or nothing of it (docs/operating, "Reload").

Everything that can fail comes first and leaves no trace: what is fixed is compared, every room makes what it needs,
ports are opened at which nobody is taken in yet, the database is told of the listed game servers. What follows cannot
fail, and happens between two turns of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.config import Config, ServerConfig, load
from gameproxy.config_changes import (
    Change,
    changes_between,
    file_marks,
    fixed_changes,
    rewritten,
)
from gameproxy.config_problems import ConfigError, ConfigurationError, Problem

PATIENCE: Final = 8.0
"""Seconds that a reload may take: less than whoever asks for it at the control socket waits."""

Apply = Callable[[], None]
"""Puts in place what was prepared. It cannot fail."""
Prepare = Callable[[Config], Apply]
"""Has a room make what it needs for a changed configuration, without using it yet; raises
:class:`~gameproxy.config_problems.ConfigurationError`, each line of it with its place, when that cannot be."""


class Opened(Protocol):
    """Ports that were opened for a changed configuration."""

    def use(self) -> None:
        """Take clients in there, and close those that the configuration no longer has."""

    def give_up(self) -> None:
        """Close them again."""


class Reloading:
    """Reloads, one after the other.

    :param config: as the proxy runs.
    :param file: where a changed configuration is read from.
    :param rooms: in the order in which they are prepared, and then put in place.
    :param open_ports: opens those of a configuration that are not open yet; fails with ConfigError, and then none is.
    :param list_servers: has the database know ``[[servers]]``; when it fails nothing has changed.
    :param hindrance: why nothing can be reloaded now; empty when it can.
    :ivar config: what holds.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        file: Path | None,
        rooms: Sequence[Prepare],
        open_ports: Callable[[Config], Coroutine[Deferred[Any], Any, Opened]],
        list_servers: Callable[[Sequence[ServerConfig]], Deferred[None]],
        hindrance: Callable[[], str],
        clock: IReactorTime,
    ) -> None:
        self.config = config
        self._marks = file_marks(config)
        self._file = file
        self._rooms = rooms
        self._open_ports = open_ports
        self._list_servers = list_servers
        self._hindrance = hindrance
        self._clock = clock
        self._turn = DeferredLock()

    def reload(self, config: Config | None = None) -> Deferred[list[Change]]:
        """Put a changed configuration in place.

        :param config: ``None``: what stands in the file now.
        :return: fires with what has changed; fails with ConfigError, and then nothing has. Whoever cancels it no longer
            waits; the reload goes on.
        """
        told: Deferred[list[Change]] = Deferred()
        done: Deferred[list[Change]] = self._turn.run(
            lambda: Deferred.fromCoroutine(self._reload(config))
        )
        done.addCallbacks(self._log_changes, self._log_problems).chainDeferred(told)
        return told

    async def _reload(self, config: Config | None) -> list[Change]:
        self._ensure_possible()
        if config is None:
            config = self._read()
        marks = file_marks(
            config
        )  # before they are read: what is written meanwhile is news the next time
        changes = changes_between(self.config, config) + rewritten(self._marks, marks)
        fixed = fixed_changes(self.config, config)
        if fixed:
            raise ConfigError(fixed)
        applies = self._prepare(config)
        opening = Deferred.fromCoroutine(self._open_ports(config))
        opening.addTimeout(PATIENCE / 2, self._clock, _too_late)
        opened = await opening
        try:
            await self._tell_database(config)
        except BaseException:
            opened.give_up()
            raise
        for apply in applies:
            apply()
        opened.use()
        self.config, self._marks = config, marks
        return changes

    def _read(self) -> Config:
        if self._file is None:
            raise ConfigError([("", "this proxy was not configured with a file")])
        return load(self._file)

    def _ensure_possible(self) -> None:
        hindrance = self._hindrance()
        if hindrance:
            raise ConfigError([("", f"the proxy is {hindrance}: nothing is reloaded")])

    def _prepare(self, config: Config) -> list[Apply]:
        applies: list[Apply] = []
        problems: list[Problem] = []
        for room in self._rooms:
            try:
                applies.append(room(config))
            except ConfigurationError as error:
                problems += (_problem(line) for line in str(error).splitlines())
        if problems:
            raise ConfigError(problems)
        return applies

    async def _tell_database(self, config: Config) -> None:
        if config.servers == self.config.servers:
            self._ensure_possible()
            return
        try:
            await self._list_servers(config.servers)
        except Exception as error:
            problem = f"the farm's database cannot be told of them: {error}"
            raise ConfigError([("servers", problem)]) from error
        try:
            self._ensure_possible()
        except ConfigError:  # it is being stopped, and nothing follows
            self._list_servers(self.config.servers).addErrback(lambda failure: None)  # as it can
            raise

    def _log_changes(self, changes: list[Change]) -> list[Change]:
        for change in changes:
            self._log.info("Reloaded: {change}", change=str(change), event="reload_change")
        self._log.info(
            "The configuration was reloaded: {count} changes.", count=len(changes), event="reload"
        )
        return changes

    def _log_problems(self, failure: Failure) -> Failure:
        error = failure.value
        text = str(error) if isinstance(error, ConfigError) else failure.getErrorMessage()
        self._log.error(
            "The configuration was not reloaded, and nothing has changed: {problems!r}",
            problems="; ".join(text.splitlines()),
            event="reload_failed",
        )
        return failure


def _problem(line: str) -> Problem:
    place, _, message = line.partition(": ")
    return place, message


def _too_late(result: object, seconds: float) -> NoReturn:
    raise ConfigError([("", f"ports were not open within {seconds:g} s")])
