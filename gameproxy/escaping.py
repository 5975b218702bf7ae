"""What may be shown of a text that came from outside."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with all that a terminal would obey or hide (control, format and surrogate characters) escaped.

    What is printable stays as it is, the backslash too: this is for people, not to be read back.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
