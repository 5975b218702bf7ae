"""The portal: the realm with the checkers that the configuration and the program ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from twisted.cred.checkers import (
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface

from gameproxy.auth.guests import GuestChecker, IGuest
from gameproxy.auth.password_file import PasswordFile
from gameproxy.auth.passwords import PasswordFileChecker, RunInThread
from gameproxy.auth.realm import PlayerRealm
from gameproxy.auth.tickets import ITicket, TicketChecker, VerifyingKey

SUPPORTED: Final[tuple[type[Interface], ...]] = (ITicket, IUsernamePassword, IGuest)
"""The credentials that AUTH can carry: checkers for others are of no use (also for ``strcred.AuthOptionMixin``)."""


class AuthSettings(Protocol):
    """What is needed here of the configuration's ``[auth]``."""

    @property
    def guests(self) -> bool:
        """Whether guests may play."""

    @property
    def password_file(self) -> str:
        """The file of passwords; empty when passwords are off."""

    @property
    def ticket_lifetime(self) -> float:
        """Seconds that a ticket's ``exp`` may be ahead."""


def build_portal(
    auth: AuthSettings,
    clock: IReactorTime,
    run_in_thread: RunInThread[bool],
    *,
    folder: Path,
    ticket_keys: Mapping[str, tuple[str, VerifyingKey]],
    extra_checkers: Iterable[ICredentialsChecker] = (),
) -> Portal:
    """Make the portal of a proxy. Blocks while it reads the password file: it belongs before the start.

    :param run_in_thread: where passwords are checked, such as :meth:`~gameproxy.auth.passwords.HashingThreads.run`.
    :param folder: what a relative ``password_file`` is relative to.
    :param ticket_keys: by id the algorithm and the key, already read; none: tickets are off.
    :param extra_checkers: of ``--auth name:arg``, or of the program that embeds the proxy. Each takes the place of
        what the configuration says for its credentials: one for ``IUsernamePassword`` replaces ``password_file``,
        which is then not read; one for :class:`~gameproxy.auth.tickets.ITicket` the keys; one for
        :class:`~gameproxy.auth.guests.IGuest` lets in the guests that it accepts.
    :raises PasswordFileError: the password file cannot be used.
    :raises ValueError: a ticket key is not of its algorithm; an extra checker is for none of :data:`SUPPORTED`, or two
        are for the same.
    """
    portal = Portal(PlayerRealm())
    for checker in extra_checkers:
        _register(portal, _mended(checker))
    given = portal.listCredentialsInterfaces()
    if ticket_keys and ITicket not in given:
        portal.registerChecker(TicketChecker(ticket_keys, clock, auth.ticket_lifetime))
    if auth.password_file and IUsernamePassword not in given:
        file = PasswordFile(folder / auth.password_file)
        portal.registerChecker(PasswordFileChecker(file, run_in_thread))
    if auth.guests and IGuest not in given:
        portal.registerChecker(GuestChecker())
    return portal


def _register(portal: Portal, checker: ICredentialsChecker) -> None:
    interfaces = [one for one in SUPPORTED if one in checker.credentialInterfaces]
    if not interfaces:
        raise ValueError(f"{type(checker).__name__} checks none of the credentials of AUTH")
    for interface in interfaces:
        if interface in portal.checkers:
            raise ValueError(f"two checkers were given for {interface.__name__}")
    portal.registerChecker(checker, *interfaces)


def _mended(checker: ICredentialsChecker) -> ICredentialsChecker:
    """Twisted's plugin ``memory:`` keeps ``str`` where its own interface has bytes, so that it would let nobody in."""
    if type(checker) is not InMemoryUsernamePasswordDatabaseDontUse:
        return checker
    mended = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in checker.users.items():
        mended.addUser(_encoded(name), _encoded(password))
    return mended


def _encoded(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text
