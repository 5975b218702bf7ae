"""What cannot be used, told by the place at which the configuration names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gameproxy.admission import TooFewDescriptors
from gameproxy.auth import PasswordFileError
from gameproxy.config_problems import ConfigurationError
from gameproxy.keys import KeyFileError
from gameproxy.relay import PlaneUnavailable


@contextmanager
def naming(place: str, *file: Path) -> Iterator[None]:
    """Say at which place of the configuration something, or which file, is named that cannot be used.

    :raises ConfigurationError: it cannot.
    """
    try:
        yield
    except (KeyFileError, PasswordFileError, PlaneUnavailable, TooFewDescriptors) as error:
        raise ConfigurationError(f"{place}: {' '.join(map(str, (*file, error)))}") from error
