"""Tickets: a web site or launcher vouches for a player with a signed token that is good once.

A ticket is a JWT (RFC 7519) in JWS compact form (RFC 7515). PyJWT checks the signature, the header and ``aud``. What
has to do with time is checked here, against the clock that was handed in, for PyJWT reads that of the system. Whether
a ticket was used before is the farm's to say, in the transaction that takes the slot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import get_default_algorithms
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import Attribute, implementer

from gameproxy.interfaces import Identity, UsedTicket

AUDIENCE: Final = "gameproxy"
ALGORITHMS: Final = ("HS256", "EdDSA", "ES256")
LEEWAY: Final = 10.0
"""Seconds by which the clock of who issues tickets may differ from ours."""
STRING_MAX: Final = 256
"""Most characters of ``sub``, ``jti`` and ``game``."""

VerifyingKey = bytes | Ed25519PublicKey | EllipticCurvePublicKey
"""HS256: the shared secret. EdDSA and ES256: the public key, or its PEM."""
SigningKey = bytes | Ed25519PrivateKey | EllipticCurvePrivateKey
"""HS256: the shared secret. EdDSA and ES256: the private key, or its PEM."""


class ITicket(ICredentials):
    """A token that vouches for a player."""

    token: str = Attribute("A JWT in compact form: a ``str``.")


@implementer(ITicket)
@dataclass(frozen=True, slots=True)
class Ticket:
    """The credentials of mechanism ``ticket``."""

    token: str = field(repr=False)


class _BadTicket(Exception):
    """Why a ticket is not accepted. For the log: nothing of the token is in the text."""


@implementer(ICredentialsChecker)
class TicketChecker:
    """Accepts the tickets of the configured keys.

    :param keys: by the key's id (``kid``) its one algorithm, of :data:`ALGORITHMS`, and the key.
    :param lifetime: seconds that ``exp`` may be ahead.
    :raises ValueError: a key is not of its algorithm.
    """

    credentialInterfaces: Final = (ITicket,)

    def __init__(
        self,
        keys: Mapping[str, tuple[str, VerifyingKey]],
        clock: IReactorTime,
        lifetime: float = 300.0,
    ) -> None:
        self._keys = {
            key_id: (algorithm, _prepare(key_id, algorithm, key))
            for key_id, (algorithm, key) in keys.items()
        }
        self._clock = clock
        self._lifetime = lifetime

    # twisted.cred calls an avatar id bytes; checker and realm may agree on more, and a ticket says more than a name.
    def requestAvatarId(self, credentials: ITicket) -> Deferred[Any]:
        """The :class:`~gameproxy.interfaces.Identity` that the ticket vouches for; its name is not yet checked.

        :return: fails with :class:`~twisted.cred.error.UnauthorizedLogin`, which says why, for the log.
        """
        try:
            return succeed(self._identity(self._verified(credentials.token)))
        except _BadTicket as error:
            return fail(UnauthorizedLogin(str(error)))

    def _verified(self, token: str) -> dict[str, object]:
        """The claims of a token whose signature and ``aud`` are right."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            if key_id not in self._keys:
                raise _BadTicket("its kid names no configured key")
            algorithm, key = self._keys[key_id]
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=AUDIENCE,
                options={
                    "require": ["sub", "exp", "aud", "jti"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, RecursionError, ValueError) as error:
            # The last two: surrogate characters, and JSON nested deeply or with enormous numbers, which not every
            # PyJWT since 2.10 catches.
            # The text may quote what was sent; the type says enough.
            raise _BadTicket(type(error).__name__) from None

    def _identity(self, claims: dict[str, object]) -> Identity:
        now = self._clock.seconds()
        expires_at = _time(claims, "exp")
        if expires_at + LEEWAY <= now:
            raise _BadTicket("it has expired")
        if expires_at > now + self._lifetime + LEEWAY:
            raise _BadTicket("its exp is too far ahead")
        for name in ("nbf", "iat"):
            if name in claims and _time(claims, name) > now + LEEWAY:
                raise _BadTicket(f"its {name} is in the future")
        return Identity(
            player=_string(claims, "sub"),
            mechanism="ticket",
            game=_string(claims, "game") if "game" in claims else None,
            ticket=UsedTicket(_string(claims, "jti"), expires_at + LEEWAY),
        )


def _prepare(key_id: str, algorithm: str, key: VerifyingKey) -> VerifyingKey:
    """The key as PyJWT uses it, so that a PEM is read once and a wrong key is found at the start."""
    if algorithm not in ALGORITHMS:
        raise ValueError(f"ticket key {key_id!r}: the algorithm must be one of {ALGORITHMS}")
    try:
        prepared: VerifyingKey = get_default_algorithms()[algorithm].prepare_key(key)
    except (jwt.InvalidKeyError, TypeError, ValueError) as error:
        raise ValueError(f"ticket key {key_id!r} is no key for {algorithm}") from error
    return prepared


def _time(claims: dict[str, object], name: str) -> float:
    """A claim that is a NumericDate (RFC 7519, section 2)."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadTicket(f"its {name} is no number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise _BadTicket(f"its {name} is not finite")
    return seconds


def _string(claims: dict[str, object], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str):
        raise _BadTicket(f"its {name} is no string")
    if not 1 <= len(value) <= STRING_MAX:
        raise _BadTicket(f"its {name} does not have 1 to {STRING_MAX} characters")
    try:
        value.encode("utf-8")  # it may be written to a database
    except UnicodeEncodeError:
        raise _BadTicket(f"its {name} has surrogate characters") from None
    return value


def issue_ticket(
    key_id: str,
    algorithm: str,
    key: SigningKey,
    *,
    player: str,
    jti: str,
    now: float,
    lifetime: float = 60.0,
    game: str | None = None,
) -> str:
    """Make a ticket, as a web site or launcher would.

    :param key_id: the ``id`` of one of the proxy's ``ticket_keys``.
    :param algorithm: that key's algorithm.
    :param jti: an id that no other ticket has, such as 16 random bytes in hexadecimal.
    :param now: seconds since the epoch.
    :param lifetime: seconds that the ticket is good for.
    :param game: the only game that it is good for, or ``None``.
    :raises jwt.InvalidKeyError: the key is not of that algorithm.
    """
    claims = {"sub": player, "aud": AUDIENCE, "jti": jti, "iat": now, "exp": now + lifetime}
    if game is not None:
        claims["game"] = game
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})
