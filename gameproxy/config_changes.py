"""What is different in a changed configuration, and what of that cannot change while a proxy runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gameproxy.config import Config
from gameproxy.config_problems import Place, Problem, toml_path
from gameproxy.keys import Mark, file_mark

FIXED: Final[tuple[Place, ...]] = (
    ("proxy", "database"),
    ("proxy", "secret_file"),
    ("proxy", "relay"),
    ("framing",),
    ("dialect",),
    ("admin", "listen"),
    ("log",),
)
"""Where a proxy stays as it was started."""
FIXED_MESSAGE: Final = "cannot change while the proxy runs: restart it, or put back what was there"
TLS_FILES: Final = (
    "certificate",
    "key",
    "client_ca",
    "servers_ca",
    "servers_certificate",
    "servers_key",
)
"""The keys of ``[tls]`` that name files."""
TEXT_MAX: Final = 80
"""Most characters of a value that is shown."""
_NAMES: Final = {"games": "name", "servers": "id", "ticket_keys": "id"}
"""The arrays of tables whose entries have names: they are told apart by these, not by their order."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key that has another value, an entry that came or went, or a file that was written anew.

    :param place: such as ``limits.idle_seconds.rate`` or ``games.echo.capacity``.
    :param before: what was there, in JSON and ASCII, shortened; ``None``: nothing.
    :param after: what is there now.
    """

    place: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.place}: {self.after}, new"
        if self.after is None:
            return f"{self.place}: no more"
        return f"{self.place}: {self.before} -> {self.after}"


def changes_between(old: Config, new: Config) -> list[Change]:
    """All that is different, in the order of the sections."""
    return [
        Change(toml_path(place), _text(before), _text(after))
        for place, before, after in _differences((), _tables(old), _tables(new))
    ]


def fixed_changes(old: Config, new: Config) -> list[Problem]:
    """What is different and must not be, each with its place."""
    found = [place for place, _, _ in _differences((), _tables(old), _tables(new))]
    if old.folder.absolute() != new.folder.absolute():
        found.append(("folder",))
    return [
        (toml_path(place), FIXED_MESSAGE)
        for place in found
        if place == ("folder",) or any(place[: len(fixed)] == fixed for fixed in FIXED)
    ]


def file_marks(config: Config) -> dict[str, tuple[str, Mark]]:
    """The files with keys and certificates that a configuration names: by place the name, and the file's mark.

    Password files are not among them: they are read again by themselves.
    """
    tls = config.tls
    named: dict[Place, str] = {("tls", key): getattr(tls, key) for key in TLS_FILES}
    named |= {("auth", "ticket_keys", key.id, "file"): key.file for key in config.auth.ticket_keys}
    named |= {("servers", server.id, "key_file"): server.key_file for server in config.servers}
    if config.admin.listen:
        named["admin", "token_file"] = config.admin.token_file
    return {
        toml_path(place): (name, file_mark(config.resolve(name)))
        for place, name in named.items()
        if name
    }


def rewritten(
    old: Mapping[str, tuple[str, Mark]], new: Mapping[str, tuple[str, Mark]]
) -> list[Change]:
    """The files that were written anew, and have the names that they had."""
    return [
        Change(place, _text(name), f"{_text(name)}, written anew")
        for place, (name, mark) in new.items()
        if place in old and old[place][0] == name and old[place][1] != mark
    ]


def _tables(config: Config) -> dict[str, Any]:
    """The configuration as tables, those with names by their names."""
    named = _named(config.model_dump(exclude={"folder"}))
    assert isinstance(named, dict)
    return named


def _named(value: object, key: str = "") -> object:
    if isinstance(value, dict):
        return {name: _named(one, name) for name, one in value.items() if one is not None}
    if key in _NAMES and isinstance(value, tuple):
        return {entry[_NAMES[key]]: _named(entry) for entry in value}
    return value


def _differences(place: Place, old: object, new: object) -> Iterator[tuple[Place, object, object]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differences((*place, name), old.get(name), new.get(name))
    elif old != new:
        yield place, old, new


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = json.dumps(value)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 3]}..."
