"""The configuration: what may stand in ``gameproxy.toml``, and what it means (docs/configuration).

Each section of the file is a frozen model whose fields have the names of the keys. An unknown key, a wrong type or an
impossible value is an error that names its place; nothing is guessed, and what this version cannot do is refused rather
than ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gameproxy.certificates import expected_identity
from gameproxy.config_problems import PLAINER, duplicates, invalid, read_document, toml_path
from gameproxy.config_problems import ConfigError as ConfigError
from gameproxy.config_problems import Place as Place
from gameproxy.config_problems import Problem as Problem
from gameproxy.config_problems import problems_in as problems_in
from gameproxy.config_values import (
    FROM_LIST,
    ClearListeners,
    Command,
    Count,
    CountOrZero,
    Database,
    FilledText,
    Host,
    LengthBytes,
    LimitMode,
    Listeners,
    Name,
    Networks,
    Port,
    Rate,
    Relay,
    Seconds,
    Share,
    Text,
    is_loopback,
    network,
)
from gameproxy.framing import FORMATS, FrameFormat

OWN_FRAMES_NEED: Final = 512
"""Bytes that a body must be able to have for the proxy's own frames to fit."""
OWN_FRAMES_BEGIN: Final = 16
"""And bytes that it need not have more of: the proxy's shortest frames are little longer."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ProxyConfig(_Section):
    """``[proxy]``: where clients connect, where the farm's database and secret are, and this proxy's bounds."""

    listen: Listeners = ("tcp:7777",)
    database: Database = "sqlite:///farm.db"
    secret_file: FilledText = "farm.secret"  # noqa: S105 - the name of a file
    max_sessions: Count = 9000
    max_unauthenticated: Count = 1000
    drain_grace: Seconds = 30.0
    stall_timeout: Seconds = 30.0
    relay: Relay = "auto"
    sockmap_after: Seconds = 2.0


class FramingConfig(_Section):
    """``[framing]``: the frames that are relayed. A field that is ``None`` is as in ``format``."""

    format: str = "int32"
    length_offset: int | None = None
    length_bytes: LengthBytes | None = None
    byte_order: Literal["big", "little"] | None = None
    length_adjustment: int | None = None
    max_frame: int | None = None
    varint_bytes: int | None = None

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in FORMATS:
            raise ValueError("must be one of " + ", ".join(FORMATS))
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> FramingConfig:
        try:
            _ = self.frame_format
        except ValueError as error:
            name, _, message = str(error).partition(" ")
            raise invalid([((name,), message)]) from error
        return self

    @property
    def frame_format(self) -> FrameFormat:
        """The format that these keys describe."""
        own = self.model_dump(exclude={"format"}, exclude_none=True)
        return replace(FORMATS[self.format], **own)


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
        """Whether frames of the proxy's own are on a wire."""
        return self.client != "plain" or self.admission == "handshake"


class TicketKeyConfig(_Section):
    """One of ``auth.ticket_keys``: whose tickets are believed."""

    id: FilledText
    algorithm: Literal["HS256", "EdDSA", "ES256"]
    file: FilledText


class AuthConfig(_Section):
    """``[auth]``: how players prove who they are. An empty ``password_file`` turns passwords off."""

    timeout: Seconds = 5.0
    guests: bool = False
    duplicates: Literal["replace", "refuse"] = "replace"
    password_file: Text = ""
    password_without_tls: bool = False
    ticket_lifetime: Seconds = 300.0
    ticket_keys: Annotated[tuple[TicketKeyConfig, ...], FROM_LIST] = ()


class SelectionConfig(_Section):
    """``[selection]``: which game server a session gets, and how long it waits for one."""

    strategy: Literal["packed", "least_connections", "random"] = "packed"
    max_load: Share = 1.0
    queue_size: CountOrZero = 1000
    queue_timeout: Seconds = 60.0
    attempts: Count = 3
    connect_timeout: Seconds = 2.0
    handshake_timeout: Seconds = 5.0


class LimitConfig(_Section):
    """One of ``[limits.NAME]``: ``rate`` is what may go on for ever, ``burst`` what may come at once."""

    mode: LimitMode = "off"
    rate: Rate | None = None
    burst: Rate | None = None


class IdleLimitConfig(_Section):
    """``[limits.idle_seconds]``: ``rate`` is the seconds."""

    mode: LimitMode = "off"
    rate: Seconds | None = None


class LimitsConfig(_Section):
    """``[limits]``: how much a client may do."""

    connections_per_second: LimitConfig = LimitConfig()
    frames_per_second: LimitConfig = LimitConfig()
    bytes_per_second: LimitConfig = LimitConfig()
    sessions_per_address: LimitConfig = LimitConfig()
    idle_seconds: IdleLimitConfig = IdleLimitConfig()


class AdminConfig(_Section):
    """``[admin]``: where monitoring and operators' programs ask. An empty ``listen`` turns it off."""

    listen: Text = ""
    token_file: FilledText = "admin.token"  # noqa: S105 - the name of a file
    public: bool = False

    @model_validator(mode="after")
    def _is_private(self) -> AdminConfig:
        if self.listen and not self.public and not is_loopback(self.listen):
            message = (
                "must be on this machine alone, as 'tcp:9180:interface=127.0.0.1' or 'unix:admin.sock'; "
                "or say public = true"
            )
            raise invalid([(("listen",), message)])
        return self


class LogConfig(_Section):
    """``[log]``: what is logged, for programs. An empty ``json_file`` turns it off, ``-`` is the standard output."""

    json_file: Text = ""


class GameConfig(_Section):
    """One of ``[[games]]``: a game whose game servers the proxy starts."""

    name: Name
    command: Command
    capacity: Count
    min_ready: CountOrZero = 0
    max_servers: Count
    start_timeout: Seconds = 60.0
    start_attempts: Count = 2
    stop_when_idle: Seconds = 600.0
    stop_grace: Seconds = 30.0

    @field_validator("max_servers")
    @classmethod
    def _are_enough(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_ready", 0):
            raise ValueError("must be min_ready or more")
        return value


class ServerConfig(_Section):
    """One of ``[[servers]]``: a game server that runs elsewhere. An empty ``key_file`` means the derived key, an empty
    ``tls_name`` the host's."""

    id: Name
    game: Name
    host: Host
    port: Port
    capacity: Count
    key_file: Text = ""
    tls: bool = False
    tls_name: Host | Literal[""] = ""

    @model_validator(mode="after")
    def _can_prove_itself(self) -> ServerConfig:
        if self.tls_name and not self.tls:
            raise invalid([(("tls_name",), "has no meaning without tls = true")])
        try:
            _ = self.tls and expected_identity(self.tls_name or self.host)
        except ValueError as error:
            place = "tls_name" if self.tls_name else "host"
            message = "must be an IP address or a host name that a certificate can be for"
            raise invalid([((place,), message)]) from error
        return self


class TlsConfig(_Section):
    """``[tls]``: what is shown over TLS, and who is believed there. Empty: nothing, and whom the system believes."""

    listen: ClearListeners = ()
    certificate: Text = ""
    key: Text = ""
    client_ca: Text = ""
    minimum: Literal["1.2", "1.3"] = "1.2"
    servers_ca: Text = ""
    servers_certificate: Text = ""
    servers_key: Text = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files, some of them empty."""
        to_clients = self.certificate, self.key, self.client_ca
        return *to_clients, self.servers_ca, self.servers_certificate, self.servers_key

    @model_validator(mode="after")
    def _are_whole(self) -> TlsConfig:
        found: list[tuple[Place, str]] = []
        for certificate, key in (("certificate", "key"), ("servers_certificate", "servers_key")):
            for one, other in ((certificate, key), (key, certificate)):
                if getattr(self, other) and not getattr(self, one):
                    found.append(((one,), f"must be named where {other} is"))
        if self.listen and not self.certificate and not self.key:
            found.append((("certificate",), "is needed to listen"))
        if self.client_ca and not self.certificate and not self.key:
            found.append((("client_ca",), "has no meaning without a certificate"))
        if found:
            raise invalid(found)
        return self


class ProxyProtocolConfig(_Section):
    """``[proxy_protocol]``: ports at which each connection begins with a PROXY header, and who may connect there."""

    listen: ClearListeners = ()
    trusted: Networks = ()
    timeout: Seconds = 3.0
    tls: bool = False

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Who may send headers."""
        return tuple(network(one) for one in self.trusted)

    @model_validator(mode="after")
    def _trusts_somebody(self) -> ProxyProtocolConfig:
        if self.listen and not self.trusted:
            raise invalid([(("trusted",), "must name who may send headers")])
        return self


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
    tls: TlsConfig = TlsConfig()
    proxy_protocol: ProxyProtocolConfig = ProxyProtocolConfig()
    admin: AdminConfig = AdminConfig()
    log: LogConfig = LogConfig()
    games: Annotated[tuple[GameConfig, ...], FROM_LIST] = ()
    servers: Annotated[tuple[ServerConfig, ...], FROM_LIST] = ()
    folder: Path = Path()

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        found = list(duplicates(self.model_dump()))
        if self.dialect.has_own_frames and self.framing.frame_format.largest < OWN_FRAMES_NEED:
            place = ("framing", "max_frame")
            message = f"a body of {OWN_FRAMES_NEED} bytes must fit, for the proxy's own frames"
            found.append((place, message))
        if self.dialect.has_own_frames and self.framing.frame_format.smallest > OWN_FRAMES_BEGIN:
            place = ("framing", "length_adjustment")
            message = f"a body of {OWN_FRAMES_BEGIN} bytes must fit, for the proxy's own frames"
            found.append((place, message))
        if self.dialect.client == "plain" and len(self.game_names) > 1:
            place = ("dialect", "client")
            found.append((place, "plain clients cannot name a game: there may be only one"))
        if not (self.proxy.listen or self.tls.listen or self.proxy_protocol.listen):
            place = ("proxy", "listen")
            message = "there must be an endpoint here, in [tls] or in [proxy_protocol]"
            found.append((place, message))
        if self.proxy_protocol.tls and not self.tls.certificate:
            found.append((("proxy_protocol", "tls"), "needs tls.certificate and tls.key"))
        if found:
            raise invalid(found)
        return self

    def resolve(self, name: str) -> Path:
        """The absolute path of a file that the configuration names."""
        return (self.folder / name).absolute()

    @property
    def database_path(self) -> Path:
        """Where the farm's SQLite database is; absolute."""
        return self.resolve(self.proxy.database.removeprefix("sqlite:///"))

    @property
    def secret_path(self) -> Path:
        """Where the farm's secret is; absolute."""
        return self.resolve(self.proxy.secret_file)

    @property
    def game_names(self) -> tuple[str, ...]:
        """The games of this farm, each once, in the order of the file."""
        names = [game.name for game in self.games] + [server.game for server in self.servers]
        return tuple(dict.fromkeys(names))


def load(path: str | Path) -> Config:
    """Read a configuration to run a proxy with.

    :raises ConfigError: the file cannot be read or used, or names neither a game nor a game server.
    """
    file = Path(path).absolute()
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise ConfigError([("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([("", f"is not UTF-8 at byte {error.start}")]) from error
    return parse(text, file.parent, farm_needed=True)


def parse(text: str, folder: str | Path, *, farm_needed: bool = False) -> Config:
    """Read a configuration from the text of its file.

    :param folder: what relative paths are relative to.
    :param farm_needed: whether it is an error to name neither a game nor a game server.
    :raises ConfigError: with all that is wrong; after an error of syntax, that alone.
    """
    document = read_document(text)
    problems: list[Problem] = []
    if document.pop("folder", None) is not None:
        problems.append(("folder", PLAINER["extra_forbidden"]))
    if farm_needed and not document.get("games") and not document.get("servers"):
        problems.append(("games", "there must be a game in [[games]] or a server in [[servers]]"))
    try:
        config = Config.model_validate({**document, "folder": Path(folder)})
    except ValidationError as error:
        problems += problems_in(error)
        # Only valid sections are compared with one another; but all problems are told at once.
        doubles = ((toml_path(place), message) for place, message in duplicates(document))
        problems += [double for double in doubles if double not in problems]
    if problems:
        raise ConfigError(problems)
    return config
