"""What may reach a terminal."""

from __future__ import annotations

import sys

from gameproxy.config import ConfigError
from gameproxy.escaping import printable as printable


def complain(error: Exception, file: str) -> None:
    """Say on standard error what is wrong, a line each; with the configuration's name where that is what is meant."""
    name = f"{file}: " if isinstance(error, ConfigError) else ""
    for line in str(error).splitlines():
        print(printable(f"{name}{line}"), file=sys.stderr)
