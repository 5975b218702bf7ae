"""Payloads of the proxy's own frames: read as what they are or refused, and written again the same; and what people
wrote, as it goes out in either dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from gameproxy import strict_json
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameFormat, Framer
from gameproxy.interfaces import Waiting
from gameproxy.messages import (
    OWN_FRAME_MAX,
    PROPERTIES_DEPTH,
    Auth,
    BadMessage,
    FrameType,
    Notice,
    decode_admit,
    decode_admitted,
    decode_auth,
    decode_challenge,
    decode_error,
    decode_kick,
    decode_notice,
    decode_status,
    decode_welcome,
    encode_error,
    encode_status,
)
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.strict_json import DEPTH_MAX
from tests.fuzz.choices import Choices

READERS: dict[FrameType, Callable[[bytes], Any]] = {
    FrameType.AUTH: decode_auth,
    FrameType.WELCOME: decode_welcome,
    FrameType.STATUS: decode_status,
    FrameType.ERROR: decode_error,
    FrameType.CLOSE: decode_notice,
    FrameType.CHALLENGE: decode_challenge,
    FrameType.ADMIT: decode_admit,
    FrameType.ADMITTED: decode_admitted,
    FrameType.REFUSED: decode_notice,
    FrameType.KICK: decode_kick,
}
NARROW = FrameFormat(length_bytes=1, max_frame=200)


def target(data: bytes) -> None:
    """A dialect, a format and a reason, and then a payload."""
    choices = Choices(data)
    type_ = choices.one_of(tuple(READERS))
    dialect = choices.one_of(("native", "preamble"))
    format = choices.one_of((*FORMATS.values(), NARROW))
    reason = choices.one_of(tuple(CloseReason))
    payload = choices.rest()
    _read_strictly(payload)
    for each in READERS:
        _read(each, payload)
    _tell(type_, Dialect(dialect, format), reason, payload)


def _read_strictly(payload: bytes) -> None:
    """An object is what Python's own reader takes for one, with a key never twice, and not too deep."""
    expected: object = None
    with suppress(ValueError, RecursionError):
        expected = json.loads(payload.decode(), object_pairs_hook=_once, parse_constant=_never)
    try:
        value = strict_json.decode_object(payload)
    except BadMessage as error:
        assert str(error).isascii()
        assert not isinstance(expected, dict) or _depth(expected) > DEPTH_MAX
        return
    assert value == expected and _depth(value) <= DEPTH_MAX


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError
    return dict(pairs)


def _never(name: str) -> object:
    raise ValueError


def _depth(value: object) -> int:
    """How many objects and arrays are inside each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
    return depth


def _read(type_: FrameType, payload: bytes) -> None:
    """A message, once read, is written and read again the same."""
    try:
        found = READERS[type_](payload)
    except BadMessage as error:
        assert str(error).isascii(), "something that was sent stands in the error"
        return
    assert is_dataclass(found)
    for name in (one.name for one in fields(found)):
        value = getattr(found, name)
        assert value is None or isinstance(value, str | int | float)
        if isinstance(value, float):
            assert isfinite(value) and value >= 0
    body = _written(type_, found)
    assert body[0] == type_
    assert READERS[type_](body[1:]) == found
    properties = getattr(found, "properties", "{}")
    if properties != "{}":
        assert len(properties.encode()) <= 512
        assert properties.encode() in payload, "not as it was sent"
        value = json.loads(properties)
        assert isinstance(value, dict) and _depth(value) <= PROPERTIES_DEPTH
        json.dumps(
            value, allow_nan=False, ensure_ascii=False
        ).encode()  # no infinity, no half of a pair


def _written(type_: FrameType, found: Any) -> bytes:
    if type_ in (FrameType.ADMIT, FrameType.ADMITTED):
        return bytes([type_]) + found.to_json()
    if type_ is FrameType.STATUS:
        return encode_status(found.state, found.position, found.message)
    if type_ is FrameType.ERROR:
        return encode_error(found.code, found.message, found.retry_after)
    body = found.encode(type_) if isinstance(found, Notice) else found.encode()
    assert isinstance(body, bytes)
    return body


def _tell(type_: FrameType, dialect: Dialect, reason: CloseReason, payload: bytes) -> None:
    """Whatever message somebody wrote, what goes out is one frame that is short enough, with as much as there is room
    for; or nothing, where the dialect has no words."""
    text = payload.decode("utf-8", "surrogateescape" if type_ % 2 else "replace")
    limit = min(OWN_FRAME_MAX, dialect.format.largest)
    told = {
        FrameType.ERROR: dialect.error(Refusal(reason, text, 1.5)),
        FrameType.CLOSE: dialect.close(reason, text),
    }
    for which, frame in told.items():
        if which is FrameType.CLOSE and dialect.begins_with_auth and not dialect.client_verdicts:
            assert frame == b""
            continue
        (body,) = _frames(dialect.format, frame)
        assert body[0] == which and len(body) <= limit
        message = READERS[which](body[1:]).message
        assert text.startswith(message)
        if message != text:
            longer = text[: len(message) + 1]
            more = {
                FrameType.ERROR: encode_error(reason, longer, 1.5),
                FrameType.CLOSE: Notice(reason, longer).encode(FrameType.CLOSE),
            }
            assert len(more[which]) > limit, "more would have had room"
    if limit == OWN_FRAME_MAX:
        (body,) = _frames(dialect.format, dialect.waiting(Waiting("queued", 1 + len(payload))))
        assert decode_status(body[1:]).position == 1 + len(payload)
        (body,) = _frames(dialect.format, Auth("guest", name="a").encode() and dialect.connecting())
        assert decode_status(body[1:]).state == "connecting"


def _frames(format: FrameFormat, data: bytes) -> list[bytes]:
    framer = Framer(format)
    framer.feed(data)
    bodies = list(framer.frames())
    assert framer.pending == 0
    return bodies
