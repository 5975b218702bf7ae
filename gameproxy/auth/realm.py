"""The realm: what twisted.cred's checkers have found out becomes an identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from zope.interface import Attribute, Interface, classImplements, implementer

from gameproxy.auth.names import GUEST_PREFIX, normalise_name
from gameproxy.interfaces import Identity, Peer


class IPlayer(Interface):
    """The avatar of a player: an :class:`~gameproxy.interfaces.Identity`."""

    player: str = Attribute("The player's name.")
    mechanism: str = Attribute("``ticket``, ``password`` or ``guest``.")
    game: str | None = Attribute("The game that the credentials are bound to, or ``None``.")


classImplements(Identity, IPlayer)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The mind of a login: how the client wants to prove who it is, and where it comes from."""

    mechanism: str
    peer: Peer


def _stay() -> None:
    """Nothing is attached to an avatar, so nothing ends with a logout."""


@implementer(IRealm)
class PlayerRealm:
    """Gives each player its identity, and holds every checker, whoever wrote it, to the rules of names."""

    # twisted.cred: the avatar id is bytes, the mind any object. Checkers in the wild give str too, ours for tickets
    # an Identity.
    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """Make an identity of an avatar id.

        :param avatarId: a name, as ``str`` or UTF-8; or an :class:`~gameproxy.interfaces.Identity`.
        :param mind: the :class:`Attempt`. Its mechanism counts, whatever the checker says.
        :raises UnauthorizedLogin: no player may have that name.
        """
        if IPlayer not in interfaces or not isinstance(mind, Attempt):
            raise NotImplementedError(
                "there are only players here: log in with an Attempt for IPlayer"
            )
        found = avatarId
        if not isinstance(found, Identity):
            found = Identity(_decode(found), mind.mechanism)
        player = normalise_name(found.player)
        if mind.mechanism == "guest":
            player = GUEST_PREFIX + player
        elif player.startswith(GUEST_PREFIX):
            raise UnauthorizedLogin("only guests have such names")
        return IPlayer, replace(found, player=player, mechanism=mind.mechanism), _stay


def _decode(avatar_id: object) -> str:
    """The name that a checker gave as ``str`` or UTF-8."""
    if avatar_id == ANONYMOUS:
        raise UnauthorizedLogin("who is anonymous cannot play")
    if isinstance(avatar_id, str):
        return avatar_id
    if not isinstance(avatar_id, bytes):
        raise TypeError(f"the checker gave a {type(avatar_id).__name__} for a name")
    try:
        return avatar_id.decode("utf-8")
    except UnicodeDecodeError:
        raise UnauthorizedLogin("the checker gave a name that is not UTF-8") from None
