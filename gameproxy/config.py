"""The configuration: what may stand in ``gameproxy.toml``, and what it means (docs/configuration).

Each section of the file is a frozen model whose fields have the names of the keys. An unknown key, a wrong type or an
impossible value is an error that names its place; nothing is guessed, and what this version cannot do is refused rather
than ignored.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from gameproxy.framing import FORMATS, FrameFormat

Problem = tuple[str, str]
"""A place in the file, as a TOML path such as ``games[1].capacity``, and what is wrong there."""

OWN_FRAMES_NEED: Final = 512
"""Least ``max_frame`` with which the proxy's own frames fit, in bytes of body."""
NOT_OFFERED: Final = "this version does not offer it"
_SECTIONS_NOT_OFFERED: Final = ("tls", "proxy_protocol", "admin")


class ConfigError(Exception):
    """A configuration cannot be used.

    :param problems: all that is wrong with it; a place is empty when the whole file is meant.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(": ".join(filter(None, problem)) for problem in self.problems)


def _name(value: str) -> str:
    if not value.isprintable() or value != value.strip() or "/" in value or value[0] == ".":
        raise ValueError(
            "must be of printable characters, without '/', a dot or space before it or a space after it"
        )
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not have a NUL character in it")
    return value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty")
    return value


def _host(value: str) -> str:
    if not value.isprintable() or any(character in " /" for character in value):
        raise ValueError("must be an IP address or a host name")
    return value


def _offered_relay(value: str) -> str:
    if value in ("epoll", "sockmap"):
        raise ValueError(f"{NOT_OFFERED}; use 'auto' or 'transport'")
    return value


def _offered_mode(value: str) -> str:
    if value != "off":
        raise ValueError(f"{NOT_OFFERED}; use 'off'")
    return value


_PORT_OF_LISTENER = re.compile(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]+)(?![^:])")


def _listener(value: str) -> str:
    if value.startswith("haproxy:"):
        raise ValueError(f"[proxy_protocol]: {NOT_OFFERED}")
    port = _PORT_OF_LISTENER.match(value)
    if port and not 0 <= int(port[1]) <= 65535:
        raise ValueError("must have a port from 0 to 65535")
    return value


_DATABASE = re.compile(r"sqlite:///([^\0?#]*[^\0?#/])")


def _database(value: str) -> str:
    match = _DATABASE.fullmatch(value)
    if match is None or match[1] == ":memory:":
        raise ValueError("must be 'sqlite:///relative/path' or 'sqlite:////absolute/path'")
    return value


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_no_nul)]
FileName = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
# Strict models take no list for a tuple, but TOML has only lists: tuples alone are lax, their items strict.
_FROM_LIST = Field(strict=False)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ProxyConfig(_Section):
    """``[proxy]``: where clients connect, where the farm's database and secret are, and the bounds of this proxy."""

    listen: Annotated[
        tuple[Annotated[str, AfterValidator(_listener)], ...],
        _FROM_LIST,
        AfterValidator(_not_empty),
    ] = ("tcp:7777",)
    database: Annotated[str, AfterValidator(_database)] = "sqlite:///farm.db"
    secret_file: FileName = "farm.secret"  # noqa: S105 - the name of a file
    max_sessions: Count = 9000
    max_unauthenticated: Count = 1000
    drain_grace: Seconds = 30.0
    stall_timeout: Seconds = 30.0
    relay: Annotated[
        Literal["auto", "transport", "epoll", "sockmap"], AfterValidator(_offered_relay)
    ] = "auto"
    sockmap_after: Seconds = 2.0


class FramingConfig(_Section):
    """``[framing]``: the frames that are relayed. A field that is ``None`` is as in ``format``."""

    format: str = "int32"
    length_offset: int | None = None
    length_bytes: Literal[1, 2, 3, 4, 8, "varint"] | None = None
    byte_order: Literal["big", "little"] | None = None
    length_adjustment: int | None = None
    max_frame: int | None = None
    varint_bytes: int | None = None

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FORMATS:
            raise ValueError("must be one of " + ", ".join(FORMATS))
        return value

    @model_validator(mode="after")
    def _possible(self) -> FramingConfig:
        _ = self.frame_format
        return self

    @property
    def frame_format(self) -> FrameFormat:
        """The format that these keys describe."""
        overrides = self.model_dump(exclude={"format"}, exclude_none=True)
        return replace(FORMATS[self.format], **overrides)


class DialectConfig(_Section):
    """``[dialect]``: how clients and game servers speak with the proxy."""

    client: Literal["native", "preamble", "plain"] = "native"
    admission: Literal["handshake", "proxy-v2", "none"] = "handshake"

    @model_validator(mode="before")
    @classmethod
    def _default_admission(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("client") == "plain":
            return {"admission": "none", **data}
        return data

    @property
    def has_own_frames(self) -> bool:
        """Whether frames of the proxy's own are ever on a wire."""
        return self.client != "plain" or self.admission == "handshake"


class TicketKeyConfig(_Section):
    """One of ``auth.ticket_keys``: whose tickets are believed."""

    id: FileName
    algorithm: Literal["HS256", "EdDSA", "ES256"]
    file: FileName


class AuthConfig(_Section):
    """``[auth]``: how players prove who they are. An empty ``password_file`` turns passwords off."""

    timeout: Seconds = 5.0
    guests: bool = False
    duplicates: Literal["replace", "refuse"] = "replace"
    password_file: Text = ""
    password_without_tls: bool = False
    ticket_lifetime: Seconds = 300.0
    ticket_keys: Annotated[tuple[TicketKeyConfig, ...], _FROM_LIST] = ()


class SelectionConfig(_Section):
    """``[selection]``: which game server a session gets, and how long it waits for one."""

    strategy: Literal["packed", "least_connections", "random"] = "packed"
    max_load: Annotated[float, Field(gt=0, le=1)] = 1.0
    queue_size: CountOrNone = 1000
    queue_timeout: Seconds = 60.0
    attempts: Count = 3
    connect_timeout: Seconds = 2.0
    handshake_timeout: Seconds = 5.0


class IdleLimitConfig(_Section):
    """``[limits.idle_seconds]``: ``rate`` is in seconds."""

    mode: Annotated[Literal["off", "dry_run", "enforce"], AfterValidator(_offered_mode)] = "off"
    rate: Seconds | None = None


class LimitConfig(_Section):
    """One of the other ``[limits.NAME]``: ``rate`` is what lasts, ``burst`` what may come at once."""

    mode: Annotated[Literal["off", "dry_run", "enforce"], AfterValidator(_offered_mode)] = "off"
    rate: Amount | None = None
    burst: Amount | None = None


class LimitsConfig(_Section):
    """``[limits]``: how much a client may do."""

    connections_per_second: LimitConfig = LimitConfig()
    frames_per_second: LimitConfig = LimitConfig()
    bytes_per_second: LimitConfig = LimitConfig()
    sessions_per_address: LimitConfig = LimitConfig()
    idle_seconds: IdleLimitConfig = IdleLimitConfig()


class GameConfig(_Section):
    """One of ``[[games]]``: a game whose game servers the proxy starts."""

    name: Name
    command: Annotated[tuple[Text, ...], _FROM_LIST]
    capacity: Count
    min_ready: CountOrNone = 0
    max_servers: Count
    start_timeout: Seconds = 60.0
    start_attempts: Count = 2
    stop_when_idle: Seconds = 600.0
    stop_grace: Seconds = 30.0

    @field_validator("command")
    @classmethod
    def _names_a_program(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not value[0]:
            raise ValueError("must name a program first")
        return value

    @field_validator("max_servers")
    @classmethod
    def _enough_servers(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_ready", 0):
            raise ValueError("must be min_ready or more")
        return value


class ServerConfig(_Section):
    """One of ``[[servers]]``: a game server that runs elsewhere. An empty ``key_file`` means the derived key."""

    id: Name
    game: Name
    host: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_host)]
    port: Annotated[int, Field(ge=1, le=65535)]
    capacity: Count
    key_file: Text = ""


class Config(_Section):
    """A whole configuration.

    :param folder: what relative paths are relative to: the folder of the file, or where the program runs.
    """

    proxy: ProxyConfig = ProxyConfig()
    framing: FramingConfig = FramingConfig()
    dialect: DialectConfig = DialectConfig()
    auth: AuthConfig = AuthConfig()
    selection: SelectionConfig = SelectionConfig()
    limits: LimitsConfig = LimitsConfig()
    games: Annotated[tuple[GameConfig, ...], _FROM_LIST] = ()
    servers: Annotated[tuple[ServerConfig, ...], _FROM_LIST] = ()
    folder: Path = Path()

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        problems = [
            *_duplicates(("auth", "ticket_keys"), "id", [key.id for key in self.auth.ticket_keys]),
            *_duplicates(("games",), "name", [game.name for game in self.games]),
            *_duplicates(("servers",), "id", [server.id for server in self.servers]),
        ]
        if self.dialect.has_own_frames and self.framing.frame_format.max_frame < OWN_FRAMES_NEED:
            problems.append(
                (
                    ("framing", "max_frame"),
                    f"must be {OWN_FRAMES_NEED} or more: the proxy's own frames have to fit",
                )
            )
        if self.dialect.client == "plain" and len(self.game_names) > 1:
            problems.append(
                (("dialect", "client"), "plain clients cannot name a game: there must be only one")
            )
        if problems:
            raise ValidationError.from_exception_data(
                "Config",
                [
                    InitErrorDetails(
                        type=PydanticCustomError("disagreement", "{message}", {"message": message}),
                        loc=place,
                        input=None,
                    )
                    for place, message in problems
                ],
            )
        return self

    def resolve(self, name: str) -> Path:
        """The absolute path of a file that the configuration names."""
        return (self.folder / name).absolute()

    @property
    def database_path(self) -> Path:
        """Where the farm's SQLite database is."""
        return self.resolve(self.proxy.database.removeprefix("sqlite:///"))

    @property
    def game_names(self) -> tuple[str, ...]:
        """The games of this farm, each once, in the order of the file."""
        names = [game.name for game in self.games] + [server.game for server in self.servers]
        return tuple(dict.fromkeys(names))


_Place = tuple[str | int, ...]


def _duplicates(place: _Place, key: str, values: Sequence[object]) -> Iterator[tuple[_Place, str]]:
    first: dict[object, int] = {}
    for index, value in enumerate(values):
        if isinstance(value, str) and first.setdefault(value, index) != index:
            yield (
                (*place, index, key),
                f"is the same as that of {_toml_path((*place, first[value]))}",
            )


def _toml_path(place: _Place) -> str:
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            key = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step)
            path += f".{key}" if path else key
    return path


def load(path: str | Path) -> Config:
    """Read a configuration to run a proxy with.

    :raises ConfigError: the file cannot be read or used; or it names neither a game nor a game server.
    """
    file = Path(path).absolute()
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise ConfigError([("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([("", f"is not UTF-8, at byte {error.start}")]) from error
    return parse(text, file.parent, farm_needed=True)


def parse(text: str, folder: str | Path, *, farm_needed: bool = False) -> Config:
    """Read a configuration from the text of its file.

    :param folder: what relative paths are relative to.
    :param farm_needed: whether it is an error to name neither a game nor a game server.
    :raises ConfigError: with all that is wrong.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax_problem(error)]) from error
    problems: list[Problem] = []
    for name in _SECTIONS_NOT_OFFERED:
        if document.pop(name, None) is not None:
            problems.append((name, NOT_OFFERED))
    if document.pop("folder", None) is not None:
        problems.append(("folder", _UNKNOWN_KEY))
    if farm_needed and not document.get("games") and not document.get("servers"):
        problems.append(("games", "name a game in [[games]] or a game server in [[servers]]"))
    try:
        config = Config.model_validate({**document, "folder": Path(folder)})
    except ValidationError as error:
        problems += _located(error)
        # A section that is wrong is not compared with others by the models, but all problems are to be told at once.
        problems += [problem for problem in _duplicates_in(document) if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return config


def _duplicates_in(document: Mapping[str, Any]) -> Iterator[Problem]:
    auth = document.get("auth")
    keys = auth.get("ticket_keys") if isinstance(auth, Mapping) else None
    for place, key, entries in (
        (("auth", "ticket_keys"), "id", keys),
        (("games",), "name", document.get("games")),
        (("servers",), "id", document.get("servers")),
    ):
        if isinstance(entries, list):
            values = [entry.get(key) if isinstance(entry, Mapping) else None for entry in entries]
            for where, message in _duplicates(place, key, values):
                yield _toml_path(where), message


def _syntax_problem(error: Exception) -> Problem:
    text, _, place = str(error).rstrip(")").rpartition(" (at ")
    return (place, f"not TOML: {text}") if text else ("", f"not TOML: {error}")


_UNKNOWN_KEY = "unknown key"
_PLAINER = {
    "extra_forbidden": _UNKNOWN_KEY,
    "missing": "is missing",
    "tuple_type": "must be an array",
    "model_type": "must be a table",
}


def _located(error: ValidationError) -> Iterator[Problem]:
    for line in error.errors(include_url=False, include_input=False):
        if line["type"] == "value_error":
            message = str(line["ctx"]["error"])
        elif line["type"] in _PLAINER:
            message = _PLAINER[line["type"]]
        else:
            message = re.sub(r"^\w+ should (be|have) ", r"must \1 ", line["msg"])
        yield _toml_path(line["loc"]), message


def listening_endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """The endpoint that one of ``proxy.listen`` describes; nothing listens yet.

    :param reactor: what will listen.
    :raises ValueError: Twisted knows no such endpoint, or a file that it needs is not there.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from error
    except (TypeError, IndexError, ValueError) as error:
        raise ValueError(f"is no endpoint that Twisted can listen on: {error}") from error
    return endpoint
