"""Who may play, as ``[auth]`` says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime

from gameproxy.auth import CredAuthenticator, build_portal
from gameproxy.auth.passwords import RunInThread
from gameproxy.auth.tickets import VerifyingKey
from gameproxy.config import Config
from gameproxy.keys import read_ticket_key
from gameproxy.naming import naming
from gameproxy.sites import Disturbs


class Logins:
    """The authenticator of a proxy, and what it is made of.

    :param portal: in place of that of ``[auth]``; a changed configuration does not change it.
    :param checkers: take the place of what ``[auth]`` says for their credentials.
    :param run_in_thread: where passwords are checked.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(
        self,
        config: Config,
        clock: IReactorTime,
        portal: Portal | None,
        checkers: Iterable[ICredentialsChecker],
        run_in_thread: RunInThread[bool],
        disturbs: Disturbs,
    ) -> None:
        self._clock = clock
        self._portal = portal
        self._checkers = tuple(checkers)
        self._run_in_thread = run_in_thread
        self.authenticator = CredAuthenticator(
            portal or self._build(config),
            clock,
            password_without_tls=config.auth.password_without_tls,
            disturbs=disturbs,
        )

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read what a changed configuration names.

        :return: has who comes after that be authenticated by it.
        :raises ConfigurationError: a file cannot be used.
        """
        portal = self._portal or self._build(config)
        without_tls = config.auth.password_without_tls
        return lambda: self.authenticator.use(portal, without_tls)

    def _build(self, config: Config) -> Portal:
        auth = config.auth
        if config.dialect.client == "plain":
            auth = auth.model_copy(update={"guests": True})  # a client can be nothing else
        ticket_keys = _ticket_keys(config)
        with naming("auth.password_file", config.resolve(auth.password_file)):
            return build_portal(
                auth,
                self._clock,
                self._run_in_thread,
                folder=config.folder,
                ticket_keys=ticket_keys,
                extra_checkers=self._checkers,
            )


def _ticket_keys(config: Config) -> Mapping[str, tuple[str, VerifyingKey]]:
    keys = {}
    for index, key in enumerate(config.auth.ticket_keys):
        file: Path = config.resolve(key.file)
        with naming(f"auth.ticket_keys[{index}].file", file):
            keys[key.id] = key.algorithm, read_ticket_key(file, key.algorithm)
    return keys
