"""JSON objects from people who may mean harm: one way to read each, or none (docs/protocol, "JSON")."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from json.decoder import WHITESPACE, scanstring  # type: ignore[attr-defined]  # not in typeshed; there since 2.6
from typing import Final

DEPTH_MAX: Final = 100
"""Most objects and arrays inside each other, the outermost counted. Pythons differ in how many more they could read."""


class BadMessage(Exception):
    """A payload is not what its type says. The text names the fault, never what was sent."""


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise BadMessage("a key stands twice in an object")
        found[key] = value
    return found


def _no_constant(name: str) -> object:
    raise BadMessage("NaN and Infinity are no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)
_ASCII_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_NOT_JSON: Final = "not JSON in UTF-8"


def decode_object(payload: bytes) -> dict[str, object]:
    """Read one JSON object (RFC 8259) in UTF-8, in which no object has a key twice, at most :data:`DEPTH_MAX` deep.

    :raises BadMessage: for anything else.
    """
    try:
        text = payload.decode("utf-8")
    except (
        UnicodeDecodeError
    ):  # whose repr holds all that was sent, passwords too: it must not go along
        raise BadMessage(_NOT_JSON) from None
    value, end = _read_value(text, _after_white(text, 0))
    if _after_white(text, end) != len(text):
        raise BadMessage(_NOT_JSON)
    if not isinstance(value, dict):
        raise BadMessage("not a JSON object")
    if _nests_deeper(value, DEPTH_MAX):
        raise BadMessage("nested too deeply")
    return value


def encode_object(value: dict[str, object]) -> bytes:
    """Write a JSON object in UTF-8, without white space."""
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which came escaped and can only go so
        return _ASCII_ENCODER.encode(value).encode("ascii")


def plain(value: object) -> object:
    """A value that JSON can express, whatever somebody wrote into a row of a database."""
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def text_of_member(payload: bytes, name: str) -> str:
    """The text, as it was sent, of a member's value.

    :param payload: an object that has this member, and that :func:`decode_object` has taken.
    """
    text = payload.decode("utf-8")
    at = _after_white(text, 0)
    while True:
        quote = _after_white(text, at + 1)  # past the brace or the comma
        key, at = scanstring(text, quote + 1, True)
        start = _after_white(text, _after_white(text, at) + 1)  # past the colon
        _, end = _read_value(text, start)
        if key == name:
            return text[start:end]
        at = _after_white(text, end)


def is_portable(value: object, depth: int) -> bool:
    """Whether the JSON readers of all languages take this value. Half a surrogate pair, a number too large for a double
    and deep nesting break some; what a client sends for a game server must not break it.

    :param value: as decoded.
    :param depth: how many objects and arrays may be inside each other.
    """
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int | float):
        return -sys.float_info.max <= value <= sys.float_info.max
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return depth > 0 and all(is_portable(item, depth - 1) for item in value)
    return True  # null


def _nests_deeper(value: dict[str, object], depth: int) -> bool:
    """Whether more objects and arrays than ``depth`` are inside each other. Does not recurse: the value may be deep."""
    level: list[dict[str, object] | list[object]] = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _after_white(text: str, at: int) -> int:
    """Where the white space that begins at ``at``, if any, has ended."""
    end: int = WHITESPACE.match(text, at).end()
    return end


def _read_value(text: str, at: int) -> tuple[object, int]:
    """The JSON value that begins at ``at``, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):  # also for an integer of thousands of digits
        raise BadMessage(_NOT_JSON) from None
