"""How the frames of a stream are delimited (docs/protocol, "Frames").

A frame is a length field, perhaps with fixed bytes before it, and a body. :class:`FrameFormat` describes that, writes
frames and reads headers; :mod:`gameproxy.framing` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from types import MappingProxyType
from typing import Final, Literal

LENGTH_OFFSET_MAX: Final = 255
"""Most bytes before the length field."""
VARINT_BYTES_MAX: Final = 10
"""Most bytes of a varint: those of 64 bits."""

Parser = Callable[[bytes | memoryview, int], tuple[int, int] | None]
"""See :attr:`FrameFormat.parse`."""

_STRUCT_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


class FrameError(Exception):
    """A stream does not keep to its frame format: the peer broke the protocol. The stream is of no more use."""


def bad_length(length: int, limit: int) -> FrameError:
    """The error for a length that is not between 0 and ``limit`` bytes."""
    if length < 0:
        return FrameError(f"a frame of negative length {length}")
    return FrameError(f"a frame of {length} bytes, where {limit} are allowed")


def _check_integer(
    name: str, value: object, low: int | None = None, high: int | None = None
) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer")
    if low is not None and value < low:
        raise ValueError(f"{name} must be {low} or more")
    if high is not None and value > high:
        raise ValueError(f"{name} must be {high} or less")


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How the frames of a stream are delimited; the defaults are those of ``int32``.

    :param length_offset: bytes before the length field, 0 to 255; any when read, zero when written.
    :param length_bytes: 1, 2, 3, 4 or 8, or ``"varint"``: 7 bits a byte, the lowest first, the top bit set in all
        bytes but the last (LEB128, as in Minecraft).
    :param byte_order: ``"big"`` or ``"little"``; a varint has none.
    :param length_adjustment: added to the field's value to get the bytes of body after the field (as in Netty's
        LengthFieldBasedFrameDecoder).
    :param max_frame: largest body, in bytes, 1 or more.
    :param varint_bytes: most bytes of a varint, 1 to 10.
    :raises ValueError: a field is impossible; the text begins with its name.
    """

    length_offset: int = 0
    length_bytes: int | Literal["varint"] = 4
    byte_order: Literal["big", "little"] = "big"
    length_adjustment: int = 0
    max_frame: int = 2_097_151
    varint_bytes: int = 3

    header_size: int = field(init=False, repr=False, compare=False)
    """Most bytes that come before a body."""
    smallest: int = field(init=False, repr=False, compare=False)
    """Bytes of the smallest body that can be written."""
    largest: int = field(init=False, repr=False, compare=False)
    """Bytes of the largest body that can be written: ``max_frame``, or less if the field cannot express that."""
    parse: Parser = field(init=False, repr=False, compare=False)
    """Reads a header: ``parse(buffer, at)`` gives its size and the size of the body after it, both in bytes, or
    ``None`` while the buffer ends inside the header. Raises :class:`FrameError` if the length is negative or over
    ``max_frame``, or the varint is too long."""

    def __post_init__(self) -> None:
        _check_integer("length_offset", self.length_offset, 0, LENGTH_OFFSET_MAX)
        if self.length_bytes != "varint":
            _check_integer("length_bytes", self.length_bytes)
        if self.length_bytes not in (1, 2, 3, 4, 8, "varint"):
            raise ValueError('length_bytes must be 1, 2, 3, 4, 8 or "varint"')
        if self.byte_order not in ("big", "little"):
            raise ValueError('byte_order must be "big" or "little"')
        _check_integer("length_adjustment", self.length_adjustment)
        _check_integer("max_frame", self.max_frame, 1)
        _check_integer("varint_bytes", self.varint_bytes, 1, VARINT_BYTES_MAX)
        if self.length_bytes == "varint":
            field_size, highest = self.varint_bytes, (1 << 7 * self.varint_bytes) - 1
            parse = _varint_parser(self)
        else:
            field_size, highest = self.length_bytes, (1 << 8 * self.length_bytes) - 1
            parse = _fixed_parser(self, self.length_bytes)
        smallest = max(0, self.length_adjustment)
        largest = min(self.max_frame, highest + self.length_adjustment)
        if smallest > largest:
            raise ValueError("length_adjustment leaves no length that a body could have")
        # The class is frozen, and what follows from its fields is worked out only once.
        object.__setattr__(self, "header_size", self.length_offset + field_size)
        object.__setattr__(self, "smallest", smallest)
        object.__setattr__(self, "largest", largest)
        object.__setattr__(self, "parse", parse)

    def header(self, length: int) -> bytes:
        """What comes before a body of that many bytes.

        :raises ValueError: a body of this length cannot be written in this format.
        """
        if not self.smallest <= length <= self.largest:
            raise ValueError(f"a body has {self.smallest} to {self.largest} bytes, not {length}")
        value = length - self.length_adjustment
        start = bytes(self.length_offset)
        if self.length_bytes == "varint":
            return start + _encode_varint(value)
        return start + value.to_bytes(self.length_bytes, self.byte_order)

    def encode(self, body: bytes) -> bytes:
        """The whole frame with this body.

        :raises ValueError: as of :meth:`header`.
        """
        return self.header(len(body)) + body


def _encode_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _fixed_parser(format: FrameFormat, length_bytes: int) -> Parser:
    offset, order = format.length_offset, format.byte_order
    adjustment, limit = format.length_adjustment, format.max_frame
    header_size = offset + length_bytes

    def unpack_three(buffer: bytes | memoryview, at: int) -> tuple[int]:
        return (int.from_bytes(buffer[at : at + 3], order),)

    if length_bytes == 3:  # struct has no integer of this size
        unpack: Callable[[bytes | memoryview, int], tuple[int, ...]] = unpack_three
    else:
        unpack = Struct((">" if order == "big" else "<") + _STRUCT_CODES[length_bytes]).unpack_from

    def parse(buffer: bytes | memoryview, at: int) -> tuple[int, int] | None:
        if len(buffer) - at < header_size:
            return None
        length = unpack(buffer, at + offset)[0] + adjustment
        if not 0 <= length <= limit:
            raise bad_length(length, limit)
        return header_size, length

    return parse


def _varint_parser(format: FrameFormat) -> Parser:
    offset, adjustment, limit = format.length_offset, format.length_adjustment, format.max_frame
    shifts = range(0, 7 * format.varint_bytes, 7)

    def parse(buffer: bytes | memoryview, at: int) -> tuple[int, int] | None:
        position, size = at + offset, len(buffer)
        value = 0
        for shift in shifts:
            if position >= size:
                return None
            byte = buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte <= 0x7F:
                length = value + adjustment
                if not 0 <= length <= limit:
                    raise bad_length(length, limit)
                return position - at, length
        raise FrameError("a varint that is too long")

    return parse


FORMATS: Final[Mapping[str, FrameFormat]] = MappingProxyType(
    {
        "int32": FrameFormat(),
        "int16": FrameFormat(length_bytes=2, max_frame=65_535),
        "varint": FrameFormat(length_bytes="varint"),
        "int16-le-inclusive": FrameFormat(
            length_bytes=2, byte_order="little", length_adjustment=-2, max_frame=65_533
        ),
        "vim-arcade": FrameFormat(length_offset=2, length_bytes=2, max_frame=1020),
    }
)
"""The formats that have a name: Twisted's ``Int32StringReceiver``, the same with 2 bytes, Minecraft's, OpenTTD's,
and vim-arcade's."""
