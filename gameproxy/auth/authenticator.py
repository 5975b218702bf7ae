"""From AUTH to an identity, through twisted.cred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from twisted.cred.credentials import ICredentials, UsernamePassword
from twisted.cred.error import (
    LoginFailed,
    Unauthorized,
    UnauthorizedLogin,
    UnhandledCredentials,
)
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from gameproxy.auth.failures import PasswordFailures
from gameproxy.auth.guests import Guest
from gameproxy.auth.names import BadName, normalise_name
from gameproxy.auth.realm import Attempt, IPlayer
from gameproxy.auth.tickets import Ticket
from gameproxy.interfaces import Identity, Peer
from gameproxy.messages import Auth
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.sites import AUTH_LATE_ANSWER, LATE, Disturbs, never

RETRY_AFTER: Final = 5.0
"""Seconds after which a client may try again when a checker broke."""
QUIET: Final = 60.0
"""Seconds in which no second broken login is logged: when a checker is broken, every client's login is."""
PASSWORD_NEEDS_TLS: Final = "Passwords are taken over TLS only. Connect with TLS."  # noqa: S105  # no password

TOO_MANY_FAILED: Final = "Too many passwords were wrong. Wait a little, then sign in again."
NOT_THIS_WAY: Final[Mapping[str, str]] = {
    "ticket": "Nobody is let in with a ticket here. Sign in another way.",
    "password": "Nobody is let in with a password here. Sign in another way.",
    "guest": "Guests are not let in here. Sign in.",
}
"""What to tell who comes by a mechanism that is off."""
MECHANISMS: Final = (*NOT_THIS_WAY, "other")
RESULTS: Final = ("accepted", "refused", "throttled", "broken", "cancelled")
"""What comes of authenticating: the credentials are good, or not; they are not looked at, as too many were wrong or too
many are being looked at; a checker broke; who asked went away, or it took too long."""
ODD_NAME: Final = "Nobody can have this name. Choose one of 1 to 64 visible characters."


class CredAuthenticator:
    """An :class:`~gameproxy.interfaces.Authenticator` that asks a :class:`~twisted.cred.portal.Portal`.

    A mechanism is on when the portal has a checker for its credentials. The rules of passwords (TLS, limited
    failures) hold for every checker, whoever wrote it.

    :param portal: of :func:`~gameproxy.auth.portal.build_portal`, or another whose realm gives an
        :class:`~gameproxy.interfaces.Identity` for :class:`~gameproxy.auth.realm.IPlayer`.
    :param password_without_tls: whether passwords are taken over connections that are not encrypted.
    :param disturbs: asked at its site.
    :ivar outcomes: how often each mechanism of :data:`MECHANISMS` had each of :data:`RESULTS`.
    """

    _log = Logger()

    def __init__(
        self,
        portal: Portal,
        clock: IReactorTime,
        *,
        password_without_tls: bool = False,
        disturbs: Disturbs = never,
    ) -> None:
        self.use(portal, password_without_tls)
        self._clock = clock
        self._disturbs = disturbs
        self._failures = PasswordFailures(clock)
        self._quiet_until = float("-inf")
        self.outcomes: Counter[tuple[str, str]] = Counter()

    def use(self, portal: Portal, password_without_tls: bool) -> None:
        """Ask another portal from now on; who is being identified is so by the one that was asked."""
        self._portal = portal
        self._password_without_tls = password_without_tls

    def authenticate(self, request: Auth, peer: Peer) -> Deferred[Identity]:
        """Check the credentials of an AUTH.

        :return: fires with the identity; fails with :class:`~gameproxy.reasons.Refusal`: ``auth_failed``, or
            ``internal`` or ``throttled`` with ``retry_after``. When cancelled it fails with
            :class:`~twisted.internet.defer.CancelledError`, and what a checker still finds out is ignored.
        """
        return Deferred.fromCoroutine(self._authenticate(request, peer))

    async def _authenticate(self, request: Auth, peer: Peer) -> Identity:
        result = "cancelled"  # until something else is known, by whatever it ends
        try:
            if self._disturbs(AUTH_LATE_ANSWER):
                await deferLater(self._clock, LATE)
            identity = await self._refusing(request, peer)
            result = "accepted"
            return identity
        except Refusal as refusal:
            result = _result_of(refusal)
            raise
        finally:
            mechanism = request.mechanism if request.mechanism in NOT_THIS_WAY else "other"
            self.outcomes[mechanism, result] += 1

    async def _refusing(self, request: Auth, peer: Peer) -> Identity:
        try:
            return await self._identify(request, peer)
        except (Refusal, CancelledError):
            raise
        except UnhandledCredentials as error:
            message = NOT_THIS_WAY[request.mechanism]
            raise Refusal(CloseReason.AUTH_FAILED, message, detail=str(error)) from None
        except (Unauthorized, LoginFailed) as error:
            raise Refusal(CloseReason.AUTH_FAILED, detail=str(error)) from None
        except Exception:
            self._log_broken(request.mechanism)
            raise Refusal(CloseReason.INTERNAL, retry_after=RETRY_AFTER) from None

    async def _identify(self, request: Auth, peer: Peer) -> Identity:
        attempt = Attempt(request.mechanism, peer)
        if request.mechanism == "ticket" and request.ticket is not None:
            return await self._login(Ticket(request.ticket), attempt)
        if request.mechanism == "guest" and request.name is not None:
            return await self._login_as_guest(request.name, attempt)
        if (
            request.mechanism == "password"
            and request.username is not None
            and request.password is not None
        ):
            return await self._login_with_password(request.username, request.password, attempt)
        raise UnauthorizedLogin("unknown mechanism, or nothing for it")

    async def _login_as_guest(self, name: str, attempt: Attempt) -> Identity:
        try:
            guest = Guest(normalise_name(name))
        except BadName as error:
            raise Refusal(CloseReason.AUTH_FAILED, ODD_NAME, detail=str(error)) from None
        return await self._login(guest, attempt)

    async def _login_with_password(
        self, username: str, password: str, attempt: Attempt
    ) -> Identity:
        if not (attempt.peer.secure or self._password_without_tls):
            raise Refusal(CloseReason.AUTH_FAILED, PASSWORD_NEEDS_TLS)
        name = normalise_name(username)
        try:
            credentials = UsernamePassword(name.encode("utf-8"), password.encode("utf-8"))
        except UnicodeEncodeError:
            raise UnauthorizedLogin("surrogate characters in the password") from None
        wait = self._failures.begin(name, attempt.peer.address)
        if wait > 0:
            raise Refusal(
                CloseReason.AUTH_FAILED, TOO_MANY_FAILED, wait, "too many passwords were wrong"
            )
        try:
            identity = await self._login(credentials, attempt)
        except (Unauthorized, LoginFailed, CancelledError):
            raise  # it counts as a failure; who left, too, had a guess checked
        except Exception:
            self._failures.take_back(name, attempt.peer.address)
            raise
        self._failures.take_back(name, attempt.peer.address)
        return identity

    async def _login(self, credentials: ICredentials, attempt: Attempt) -> Identity:
        _, avatar, logout = await self._portal.login(credentials, attempt, IPlayer)
        logout()  # the identity is all that is wanted: nobody stays attached to the realm
        if not isinstance(avatar, Identity):
            raise TypeError("the realm's avatar is no Identity")
        return avatar

    def _log_broken(self, mechanism: str) -> None:
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            self._log.failure(
                "a login by {mechanism} broke; more within {quiet} s are not logged",
                mechanism=mechanism,
                quiet=QUIET,
            )


def _result_of(refusal: Refusal) -> str:
    if refusal.reason is CloseReason.INTERNAL:
        return "broken"
    if refusal.reason is CloseReason.THROTTLED or refusal.message == TOO_MANY_FAILED:
        return "throttled"
    return "refused"
