"""Guests: players who only say what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred, succeed
from zope.interface import Attribute, implementer


class IGuest(ICredentials):
    """A name, and no proof of it."""

    name: str = Attribute("What the guest is called: a ``str``, already normalised.")


@implementer(IGuest)
@dataclass(frozen=True, slots=True)
class Guest:
    """The credentials of mechanism ``guest``."""

    name: str


@implementer(ICredentialsChecker)
class GuestChecker:
    """Lets every guest in. The realm makes ``guest:NAME`` of the name."""

    credentialInterfaces: Final = (IGuest,)

    def requestAvatarId(self, credentials: IGuest) -> Deferred[bytes | tuple[()]]:
        """The guest's name in UTF-8."""
        return succeed(credentials.name.encode("utf-8"))
