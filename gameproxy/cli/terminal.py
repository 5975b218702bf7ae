"""What may reach a terminal."""

from __future__ import annotations

import sys

from gameproxy.config import ConfigError


def printable(text: str) -> str:
    """The text with all that a terminal would obey or hide (control, format and surrogate characters) escaped.

    What is printable stays as it is, the backslash too: this is for people, not to be read back.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def complain(error: Exception, file: str) -> None:
    """Say on standard error what is wrong, a line each; with the configuration's name where that is what is meant."""
    name = f"{file}: " if isinstance(error, ConfigError) else ""
    for line in str(error).splitlines():
        print(printable(f"{name}{line}"), file=sys.stderr)
