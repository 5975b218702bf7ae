"""The proxy's own frames: their types, and the JSON in them (docs/protocol, "Frames of the proxy's own").

Each body is one byte of type and then a payload. Encoders give a whole body, without the length field; decoders take
the payload, without the type byte, and raise :class:`~gameproxy.strict_json.BadMessage` for anything that is not
exactly what it should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

# Offered from here too: what the decoders raise, and the reader of properties.
from gameproxy.strict_json import BadMessage as BadMessage
from gameproxy.strict_json import decode_object as decode_object
from gameproxy.strict_json import encode_object, is_portable, text_of_member

PROTOCOL_VERSION: Final = 1
"""What AUTH and CHALLENGE have as ``protocol``."""
OWN_FRAME_MAX: Final = 4096
"""Largest body of a frame of the proxy's own before a session relays, in bytes."""
RESERVED_BELOW: Final = 0x10
"""Types below this one belong to the proxy, the others to the game."""
PROPERTIES_MAX: Final = 512
"""Most bytes of JSON that AUTH's ``properties`` may have, counted as sent."""
PROPERTIES_DEPTH: Final = 32
"""Most objects and arrays inside each other in ``properties``, the outermost counted: common JSON readers take 64."""
LONGEST_BAN: Final = 100 * 365 * 86400.0
"""Seconds that the longest ban lasts: a century. A KICK that asks for more gets this, and so does a ``retry_after``."""


class FrameType(IntEnum):
    """First byte of a body of the proxy's own."""

    AUTH = 0x01
    WELCOME = 0x02
    SETTINGS = 0x03
    STATUS = 0x04
    ERROR = 0x05
    CLOSE = 0x06
    CHALLENGE = 0x07
    ADMIT = 0x08
    ADMITTED = 0x09
    REFUSED = 0x0A
    KICK = 0x0B


class UnsupportedVersion(BadMessage):
    """The message is of another version of the protocol."""


def _string(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadMessage(f"{name!r} must be a string")
    return value


def _optional_string(fields: dict[str, object], name: str) -> str | None:
    return _string(fields, name) if name in fields else None


def _properties(fields: dict[str, object], payload: bytes) -> str:
    value = fields.get("properties")
    if not isinstance(value, dict):
        raise BadMessage("'properties' must be an object")
    text = text_of_member(payload, "properties")
    if len(text.encode("utf-8")) > PROPERTIES_MAX:
        raise BadMessage(f"'properties' may have {PROPERTIES_MAX} bytes")
    if not is_portable(value, PROPERTIES_DEPTH):
        raise BadMessage("'properties' hold what not every JSON reader takes")
    return text


def _with_properties(fields: dict[str, object], properties: str) -> bytes:
    """An object of some fields and, as last, properties that are JSON already: they go on as they came."""
    return encode_object(fields)[:-1] + b',"properties":' + properties.encode("utf-8") + b"}"


def _check_version(fields: dict[str, object]) -> None:
    version = fields.get("protocol")
    if not isinstance(version, int) or isinstance(version, bool):
        raise BadMessage("'protocol' must be an integer")
    if version != PROTOCOL_VERSION:
        raise UnsupportedVersion(f"'protocol' must be {PROTOCOL_VERSION}")


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: who the client says it is, and the proof.

    :param mechanism: ``ticket``, ``password``, ``guest``, or what the client made up.
    :param properties: for the game server: the text of a JSON object, as the client wrote it.
    """

    mechanism: str
    ticket: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str | None = None
    game: str | None = None
    properties: str = "{}"

    def encode(self) -> bytes:
        """The body of this AUTH, as a client sends it."""
        fields: dict[str, object] = {"protocol": PROTOCOL_VERSION, "mechanism": self.mechanism}
        for name in ("ticket", "username", "password", "name", "game"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return bytes([FrameType.AUTH]) + _with_properties(fields, self.properties)


def decode_auth(payload: bytes) -> Auth:
    """Read the payload of AUTH.

    :raises UnsupportedVersion: it is of another version.
    :raises BadMessage: it is no such JSON, a field has a wrong type, or ``properties`` are too large, too deep, or
        hold what not every JSON reader takes.
    """
    fields = decode_object(payload)
    _check_version(fields)
    return Auth(
        mechanism=_string(fields, "mechanism"),
        ticket=_optional_string(fields, "ticket"),
        username=_optional_string(fields, "username"),
        password=_optional_string(fields, "password"),
        name=_optional_string(fields, "name"),
        game=_optional_string(fields, "game"),
        properties=_properties(fields, payload) if "properties" in fields else "{}",
    )


@dataclass(frozen=True, slots=True)
class Welcome:
    """WELCOME: the session relays from here on."""

    session: str
    player: str
    server: str
    game: str

    def encode(self) -> bytes:
        """The body of this WELCOME."""
        return bytes([FrameType.WELCOME]) + encode_object(
            {
                "session": self.session,
                "player": self.player,
                "server": self.server,
                "game": self.game,
            }
        )


def decode_welcome(payload: bytes) -> Welcome:
    """Read the payload of WELCOME.

    :raises BadMessage: it is no such object.
    """
    fields = decode_object(payload)
    return Welcome(
        session=_string(fields, "session"),
        player=_string(fields, "player"),
        server=_string(fields, "server"),
        game=_string(fields, "game"),
    )


def encode_status(state: str, position: int | None, message: str) -> bytes:
    """The body of a STATUS. ``state`` is queued, starting or connecting; ``position`` 1 is next."""
    fields: dict[str, object] = {"state": state}
    if position is not None:
        fields["position"] = position
    fields["message"] = message
    return bytes([FrameType.STATUS]) + encode_object(fields)


@dataclass(frozen=True, slots=True)
class Status:
    """What a client is told with STATUS: see :func:`encode_status`."""

    state: str
    position: int | None
    message: str


def decode_status(payload: bytes) -> Status:
    """Read the payload of STATUS.

    :raises BadMessage: it is no such object.
    """
    fields = decode_object(payload)
    position = fields.get("position")
    if position is not None and (not isinstance(position, int) or isinstance(position, bool)):
        raise BadMessage("'position' must be an integer")
    return Status(_string(fields, "state"), position, _string(fields, "message"))


def encode_error(code: str, message: str, retry_after: float | None = None) -> bytes:
    """The body of an ERROR. ``retry_after`` is in seconds."""
    fields: dict[str, object] = {"code": code, "message": message}
    if retry_after is not None:
        fields["retry_after"] = retry_after
    return bytes([FrameType.ERROR]) + encode_object(fields)


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """What a client is told with ERROR: see :func:`encode_error`."""

    code: str
    message: str
    retry_after: float | None


def decode_error(payload: bytes) -> ErrorNotice:
    """Read the payload of ERROR.

    :raises BadMessage: it is no such object, or ``retry_after`` is no number, or below 0.
    """
    fields = decode_object(payload)
    retry_after = _seconds(fields, "retry_after") if "retry_after" in fields else None
    return ErrorNotice(_string(fields, "code"), _string(fields, "message"), retry_after)


def encode_settings(settings: bytes) -> bytes:
    """The body of a SETTINGS, whose payload is the game server's affair."""
    return bytes([FrameType.SETTINGS]) + settings


@dataclass(frozen=True, slots=True)
class Notice:
    """The payload of CLOSE, REFUSED and KICK: a code for programs and a message for people."""

    code: str
    message: str

    def encode(self, type_: FrameType) -> bytes:
        """The body of this notice as CLOSE or REFUSED."""
        return bytes([type_]) + encode_object({"code": self.code, "message": self.message})


def decode_notice(payload: bytes) -> Notice:
    """Read the payload of CLOSE or REFUSED.

    :raises BadMessage: it is not an object with ``code`` and ``message``.
    """
    fields = decode_object(payload)
    return Notice(_string(fields, "code"), _string(fields, "message"))


@dataclass(frozen=True, slots=True)
class Kick:
    """KICK: a game server ends a session.

    :param ban_for: seconds for which the player is banned too, more than 0, or ``None``.
    """

    code: str
    message: str
    ban_for: float | None = None

    def encode(self) -> bytes:
        """The body of this KICK, as a game server sends it."""
        fields: dict[str, object] = {"code": self.code, "message": self.message}
        if self.ban_for is not None:
            fields["ban_for"] = self.ban_for
        return bytes([FrameType.KICK]) + encode_object(fields)


def decode_kick(payload: bytes) -> Kick:
    """Read the payload of KICK.

    :raises BadMessage: it is no such object, or ``ban_for`` is no number, or below 0.
    """
    fields = decode_object(payload)
    seconds = _seconds(fields, "ban_for") if "ban_for" in fields else 0.0
    return Kick(_string(fields, "code"), _string(fields, "message"), seconds or None)


def _seconds(fields: dict[str, object], name: str) -> float:
    value = fields[name]
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(min(value, LONGEST_BAN))
    raise BadMessage(f"{name!r} must be a number of seconds, 0 or more")


@dataclass(frozen=True, slots=True)
class Challenge:
    """CHALLENGE: a game server says who it is, and gives the nonce that ADMIT must carry."""

    server: str
    nonce: str

    def encode(self) -> bytes:
        """The body of this CHALLENGE."""
        return bytes([FrameType.CHALLENGE]) + encode_object(
            {"protocol": PROTOCOL_VERSION, "server": self.server, "nonce": self.nonce}
        )


def decode_challenge(payload: bytes) -> Challenge:
    """Read the payload of CHALLENGE.

    :raises BadMessage: it is no such object, or of another version.
    """
    fields = decode_object(payload)
    _check_version(fields)
    return Challenge(_string(fields, "server"), _nonce(fields, "nonce"))


def _nonce(fields: dict[str, object], name: str) -> str:
    value = _string(fields, name)
    if len(value) != 32 or not set(value) <= set("0123456789abcdef"):
        raise BadMessage(f"{name!r} must be 16 bytes in lower-case hexadecimal")
    return value


@dataclass(frozen=True, slots=True)
class Admit:
    """The JSON of ADMIT: whom the proxy asks a game server to let in.

    :param properties: the text of a JSON object, as the client wrote it.
    """

    session: str
    player: str
    address: str
    game: str
    server: str
    nonce: str
    proxy_nonce: str
    properties: str

    def to_json(self) -> bytes:
        """The bytes that the MAC covers and that are sent."""
        return _with_properties(
            {
                "session": self.session,
                "player": self.player,
                "address": self.address,
                "game": self.game,
                "server": self.server,
                "nonce": self.nonce,
                "proxy_nonce": self.proxy_nonce,
            },
            self.properties,
        )


def decode_admit(payload: bytes) -> Admit:
    """Read the JSON of ADMIT (what follows the MAC).

    :raises BadMessage: it is no such object.
    """
    fields = decode_object(payload)
    return Admit(
        session=_string(fields, "session"),
        player=_string(fields, "player"),
        address=_string(fields, "address"),
        game=_string(fields, "game"),
        server=_string(fields, "server"),
        nonce=_nonce(fields, "nonce"),
        proxy_nonce=_nonce(fields, "proxy_nonce"),
        properties=_properties(fields, payload),
    )


@dataclass(frozen=True, slots=True)
class Admitted:
    """The JSON of ADMITTED: the game server lets the session in."""

    session: str
    proxy_nonce: str

    def to_json(self) -> bytes:
        """The bytes that the MAC covers and that are sent."""
        return encode_object({"session": self.session, "proxy_nonce": self.proxy_nonce})


def decode_admitted(payload: bytes) -> Admitted:
    """Read the JSON of ADMITTED (what follows the MAC).

    :raises BadMessage: it is no such object.
    """
    fields = decode_object(payload)
    return Admitted(_string(fields, "session"), _nonce(fields, "proxy_nonce"))
