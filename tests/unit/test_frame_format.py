"""Frame formats: what is written, and what is read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.frame_format import FORMATS, FrameError, FrameFormat

INT32 = FORMATS["int32"]
VARINT = FORMATS["varint"]
ODD = {
    "three little with offset": FrameFormat(
        length_offset=5, length_bytes=3, byte_order="little", length_adjustment=-3
    ),
    "three big": FrameFormat(length_bytes=3, max_frame=300),
    "one byte": FrameFormat(length_bytes=1, max_frame=200),
    "eight bytes": FrameFormat(length_bytes=8),
    "eight little, four more follow": FrameFormat(
        length_bytes=8, byte_order="little", length_adjustment=4
    ),
    "varint with offset": FrameFormat(length_offset=2, length_bytes="varint", length_adjustment=-1),
    "short varint": FrameFormat(length_bytes="varint", varint_bytes=1),
}
ALL_FORMATS = {**FORMATS, **ODD}


class FrameFormatTests(SynchronousTestCase):
    """What is written, and what is read."""

    def test_vectors(self) -> None:
        """Each format writes these very bytes before a body of so many, and reads them back."""
        vectors = [
            (FORMATS["int32"], 0, "00000000"),
            (FORMATS["int32"], 3, "00000003"),
            (FORMATS["int32"], 2097151, "001fffff"),
            (FORMATS["int16"], 3, "0003"),
            (FORMATS["int16"], 65535, "ffff"),
            (FORMATS["varint"], 0, "00"),
            (FORMATS["varint"], 127, "7f"),
            (FORMATS["varint"], 128, "8001"),
            (FORMATS["varint"], 300, "ac02"),
            (FORMATS["varint"], 16384, "808001"),
            (FORMATS["varint"], 2097151, "ffff7f"),
            (FORMATS["int16-le-inclusive"], 0, "0200"),
            (FORMATS["int16-le-inclusive"], 258, "0401"),
            (FORMATS["int16-le-inclusive"], 65533, "ffff"),
            (FORMATS["vim-arcade"], 3, "00000003"),
            (FORMATS["vim-arcade"], 1020, "000003fc"),
            (ODD["three little with offset"], 258, "0000000000050100"),
            (ODD["three big"], 258, "000102"),
            (ODD["one byte"], 200, "c8"),
            (ODD["eight bytes"], 258, "0000000000000102"),
            (ODD["eight little, four more follow"], 262, "0201000000000000"),
            (ODD["varint with offset"], 127, "00008001"),
            (ODD["short varint"], 127, "7f"),
            (FrameFormat(byte_order="little"), 258, "02010000"),
        ]
        for format, length, expected in vectors:
            header = format.header(length)
            self.assertEqual(header.hex(), expected)
            self.assertEqual(format.parse(header, 0), (len(header), length))

    def test_encode_is_header_and_body(self) -> None:
        """A whole frame is its header, then its body."""
        self.assertEqual(FORMATS["vim-arcade"].encode(b"\x10hi").hex(), "00000003106869")

    def test_incomplete_header(self) -> None:
        """There is no answer before the header is complete, at any place in any buffer."""
        for format in ALL_FORMATS.values():
            header = format.header(min(100, format.largest))
            for end in range(len(header)):
                self.assertIsNone(format.parse(header[:end], 0))
                self.assertIsNone(format.parse(memoryview(b"..." + header[:end]), 3))
            self.assertEqual(format.parse(memoryview(b"..." + header), 3), (len(header), 100))

    def test_bytes_before_the_field_may_be_any(self) -> None:
        """What stands before the length field is not looked at."""
        self.assertEqual(FORMATS["vim-arcade"].parse(b"\xff\xff\x00\x03", 0), (4, 3))
        self.assertEqual(ODD["varint with offset"].parse(b"\xff\xff\x04", 0), (3, 3))

    def test_overlong_varints_are_read(self) -> None:
        """A varint may have more bytes than it needs, up to its limit."""
        self.assertEqual(VARINT.parse(b"\x80\x00", 0), (2, 0))
        self.assertEqual(VARINT.parse(b"\x83\x80\x00", 0), (3, 3))

    def test_too_long_varint_is_refused_at_once(self) -> None:
        """The last allowed byte may not announce another; nobody waits for that one."""
        self.assertIsNone(VARINT.parse(b"\x80\x80", 0))
        self.assertRaises(FrameError, VARINT.parse, b"\x80\x80\x80", 0)
        self.assertRaises(FrameError, VARINT.parse, b"\xff\xff\xff\x01", 0)
        self.assertRaises(FrameError, ODD["short varint"].parse, b"\x80", 0)

    def test_lengths_over_the_limit(self) -> None:
        """The limit itself is fine, and one byte more is not."""
        for format, fine, bad in [
            (INT32, "001fffff", "00200000"),
            (INT32, "001fffff", "ffffffff"),
            (FORMATS["vim-arcade"], "000003fc", "000003fd"),
            (ODD["one byte"], "c8", "c9"),
            (ODD["three big"], "00012c", "00012d"),
            (ODD["eight bytes"], "00000000001fffff", "ffffffffffffffff"),
            (replace(VARINT, max_frame=200), "c801", "c901"),
        ]:
            header = bytes.fromhex(fine)
            self.assertEqual(format.parse(header, 0), (len(header), format.max_frame))
            error = self.assertRaises(FrameError, format.parse, bytes.fromhex(bad), 0)
            self.assertIn(f"{format.max_frame} are allowed", str(error))

    def test_negative_lengths(self) -> None:
        """A length that is less than nothing after adjustment is refused."""
        inclusive = FORMATS["int16-le-inclusive"]
        for format, bad in [
            (inclusive, "0100"),
            (inclusive, "0000"),
            (ODD["three little with offset"], "0000000000020000"),
            (ODD["varint with offset"], "000000"),
        ]:
            error = self.assertRaises(FrameError, format.parse, bytes.fromhex(bad), 0)
            self.assertIn("negative", str(error))

    def test_lengths_that_cannot_be_written(self) -> None:
        """No header is made up for a body that the format cannot carry."""
        for format, length in [
            (INT32, -1),
            (INT32, 2097152),
            (FrameFormat(length_bytes=2, max_frame=70000), 65536),
            (FrameFormat(length_bytes="varint", max_frame=3000000), 2097152),
            (ODD["eight little, four more follow"], 3),
        ]:
            self.assertRaises(ValueError, format.header, length)
        self.assertRaises(ValueError, FORMATS["vim-arcade"].encode, bytes(1021))

    def test_largest_and_smallest(self) -> None:
        """The largest body is what both the limit and the length field allow."""
        self.assertEqual(INT32.largest, 2097151)
        self.assertEqual(FrameFormat(length_bytes=2, length_adjustment=-2).largest, 65533)
        self.assertEqual(FrameFormat(length_bytes="varint", max_frame=1 << 30).largest, 2097151)
        self.assertEqual((INT32.smallest, ODD["one byte"].smallest), (0, 0))
        self.assertEqual(ODD["eight little, four more follow"].smallest, 4)

    def test_impossible_fields(self) -> None:
        """A format that cannot be is refused, and the text begins with the field that is wrong."""
        wrong: list[dict[str, Any]] = [
            {"length_offset": -1},
            {"length_offset": 256},
            {"length_offset": "2"},
            {"length_bytes": 0},
            {"length_bytes": 5},
            {"length_bytes": True},
            {"length_bytes": 4.0},
            {"length_bytes": "Varint"},
            {"byte_order": "native"},
            {"length_adjustment": 1.5},
            {"length_adjustment": -256, "length_bytes": 1},
            {"length_adjustment": 101, "max_frame": 100},
            {"max_frame": 0},
            {"max_frame": None},
            {"varint_bytes": 0},
            {"varint_bytes": 11},
            {"varint_bytes": False},
        ]
        for fields in wrong:
            error = self.assertRaises(ValueError, FrameFormat, **fields)
            self.assertTrue(str(error).startswith(next(iter(fields)) + " "), str(error))

    def test_named_formats_are_constants(self) -> None:
        """Neither the table nor a format in it can be changed; equal fields make equal formats."""
        self.assertEqual(
            list(FORMATS), ["int32", "int16", "varint", "int16-le-inclusive", "vim-arcade"]
        )
        with self.assertRaises(TypeError):
            FORMATS["int32"] = VARINT  # type: ignore[index]  # that it cannot be done is the point
        with self.assertRaises(FrozenInstanceError):
            INT32.max_frame = 1  # type: ignore[misc]  # the same
        self.assertEqual(FrameFormat(), INT32)
        self.assertEqual(len({FrameFormat(), INT32, VARINT}), 2)
