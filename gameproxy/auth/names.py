"""Which names a player may have (docs/protocol, "Identities")."""

from __future__ import annotations

import unicodedata
from typing import Final

from twisted.cred.error import UnauthorizedLogin

NAME_MAX: Final = 64
"""Most characters of a name, counted after NFC."""
GUEST_PREFIX: Final = "guest:"
"""What the players of guests, and of nobody else, begin with. It does not count among the 64 characters."""
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs"})
"""Control, format (bidi included) and surrogate characters (Unicode Standard Annex 44, "General Category")."""


class BadName(UnauthorizedLogin):
    """This is no name for a player. The text names the fault, not the name."""


def normalise_name(name: str) -> str:
    """The NFC form of a name (Unicode Standard Annex 15), in which names are compared.

    :raises BadName: it does not have 1 to 64 characters, or has one that no name may have.
    """
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= NAME_MAX:
        raise BadName(f"a name has 1 to {NAME_MAX} characters")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in name):
        raise BadName("a name has no control, format or surrogate characters")
    return name


def player_name(name: str) -> str:
    """The name of a player of whatever mechanism, a guest's with its prefix, in the form in which names are compared.

    :raises BadName: no player can have this name.
    """
    if name.startswith(GUEST_PREFIX):
        return GUEST_PREFIX + normalise_name(name.removeprefix(GUEST_PREFIX))
    return normalise_name(name)
