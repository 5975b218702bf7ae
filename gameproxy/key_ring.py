"""The keys with which a proxy and its game servers prove themselves to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final

from gameproxy.config import Config
from gameproxy.config_changes import FIXED_MESSAGE
from gameproxy.config_problems import ConfigurationError
from gameproxy.handshake import derive_server_key
from gameproxy.interfaces import Entropy
from gameproxy.keys import read_key_file, read_secret, read_secret_file
from gameproxy.naming import naming

KEYS_KEPT: Final = 1024
"""Derived keys of game servers that are kept: each session needs one."""


class KeyRing:
    """The farm's secret, and what it and the files of ``[[servers]]`` give.

    :param entropy: makes the secret, if there is none yet.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(self, config: Config, entropy: Entropy) -> None:
        with naming("proxy.secret_file", config.secret_path):
            self._secret = read_secret(config.secret_path, entropy)
        self._derived = lru_cache(KEYS_KEPT)(partial(derive_server_key, self._secret))
        self._own = _own_keys(config)

    def key_for(self, server: str) -> bytes:
        """A game server's key: of its own file, or derived."""
        return self._own.get(server) or self._derived(server)

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read the files of a changed configuration.

        :return: has its keys be those that count.
        :raises ConfigurationError: one cannot be used, or there is another secret: game servers have keys of this one.
        """
        with naming("proxy.secret_file", config.secret_path):
            secret = read_secret_file(config.secret_path)
        if secret != self._secret:
            raise ConfigurationError(
                f"proxy.secret_file: {config.secret_path} has another secret in it, which {FIXED_MESSAGE}"
            )
        own = _own_keys(config)

        def apply() -> None:
            self._own = own

        return apply


def _own_keys(config: Config) -> Mapping[str, bytes]:
    keys = {}
    for index, server in enumerate(config.servers):
        if server.key_file:
            file = config.resolve(server.key_file)
            with naming(f"servers[{index}].key_file", file):
                keys[server.id] = read_key_file(file)
    return keys
