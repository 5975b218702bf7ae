"""JSON objects from people who may mean harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.strict_json import (
    DEPTH_MAX,
    BadMessage,
    decode_object,
    encode_object,
    is_portable,
    text_of_member,
)

TEXTS = st.text(st.characters(exclude_categories=()))
"""All strings, those with lone surrogates too."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES | TEXTS, max_size=5)
WHITE = st.text(" \t\r\n", max_size=3)


class ReadTests(SynchronousTestCase):
    """What is taken, and what is not."""

    def assert_refused(self, payload: bytes) -> None:
        """It is refused, with nothing of what was sent in the error or in what led to it."""
        error = self.assertRaises(BadMessage, decode_object, payload)
        self.assertNotIn("hush", f"{error!r} {error.__cause__!r}")
        self.assertIsNone(error.__cause__)
        self.assertTrue(error.__context__ is None or error.__suppress_context__)

    def test_not_an_object(self) -> None:
        """Only objects are taken, and only one, with nothing before or after it but white space."""
        for payload in (b"", b" ", b"[]", b'"hush"', b"1", b"null", b"{}{}", b"{} x", b"x{}"):
            self.assert_refused(payload)
        self.assertEqual(decode_object(b' \t\r\n{ "a"\t:\n1 } \r\n'), {"a": 1})

    def test_other_white_space(self) -> None:
        """A byte order mark, a form feed and a no-break space are not white space."""
        for odd in ("\ufeff", "\x0c", "\xa0", "\u2028"):
            self.assert_refused(f"{odd}{{}}".encode())
            self.assert_refused(f"{{{odd}}}".encode())
            self.assert_refused(f"{{}}{odd}".encode())

    def test_not_utf_8(self) -> None:
        """Other encodings and broken UTF-8 are refused: surrogates and overlong forms too."""
        for payload in (
            b'{"hush":"\xff"}',
            b'{"hush":"\xed\xa0\x80"}',
            b'{"hush":"\xc0\x80"}',
            '{"hush":1}'.encode("utf-16"),
            '{"hush":1}'.encode("utf-32-le"),
        ):
            self.assert_refused(payload)

    def test_not_json(self) -> None:
        """What some readers take although RFC 8259 does not have it is refused."""
        for value in (
            "NaN",
            "Infinity",
            "-Infinity",
            "01",
            "+1",
            ".5",
            "1.",
            "0x10",
            "1_000",
            "\u0661",
            "'hush'",
            '"\\x41"',
            '"\\u12"',
            '"a\nb"',
            '"a\0b"',
            "[1,]",
            "/* hush */ 1",
            "True",
        ):
            self.assert_refused(f'{{"a":{value}}}'.encode())
        self.assert_refused(b'{"a":1,}')
        self.assert_refused(b"{a:1}")

    def test_a_key_twice(self) -> None:
        """No object has a key twice, at whatever depth and however it is written."""
        for payload in (
            b'{"a":1,"a":1}',
            b'{"a":1,"\\u0061":2}',
            b'{"x":{"a":1,"a":1}}',
            b'{"x":[[{"y":{"a":null,"b":1,"a":null}}]]}',
            b'{"":1,"":1}',
        ):
            self.assert_refused(payload)
        self.assertEqual(decode_object(b'{"a":{"a":{"a":1}}}'), {"a": {"a": {"a": 1}}})

    def test_deep_and_long(self) -> None:
        """Nesting beyond the interpreter's stack and integers of thousands of digits are refused like all else."""
        self.assert_refused(b'{"a":' + b"[" * 100_000)
        self.assert_refused(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        self.assert_refused(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
        self.assert_refused(b'{"a":' + b"9" * 100_000 + b"}")
        self.assertEqual(decode_object(b'{"a":' + b"9" * 400 + b"}"), {"a": int("9" * 400)})

    def test_depth(self) -> None:
        """As many objects and arrays as may be are inside each other, full or empty; one more is refused."""
        for opening, closing in (("[", "]"), ('{"b":', "}")):
            room = DEPTH_MAX - 2
            start, end = '{"a":[0,' + opening * (room - 1), closing * (room - 1) + "]}"
            for inner in ("[]", "{}", "[1]"):
                decode_object((start + inner + end).encode())
                self.assert_refused((start + f"[{inner}]" + end).encode())

    @given(st.binary(max_size=200) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
    def test_any_bytes(self, payload: bytes) -> None:
        """Whatever comes is an object or BadMessage."""
        with contextlib.suppress(BadMessage):
            self.assertIsInstance(decode_object(payload), dict)


class WriteTests(SynchronousTestCase):
    """What is written."""

    @given(OBJECTS)
    def test_round_trip(self, value: dict[str, Any]) -> None:
        """What was written is UTF-8, and read as it was; strings with lone surrogates too."""
        self.assertEqual(decode_object(encode_object(value)), value)

    def test_short(self) -> None:
        """There is no white space, and no escape but where there must be one."""
        self.assertEqual(encode_object({"a": [1, "é\n"]}), '{"a":[1,"é\\n"]}'.encode())
        self.assertEqual(encode_object({"é": "\ud800"}), b'{"\\u00e9":"\\ud800"}')

    def test_no_numbers(self) -> None:
        """NaN and infinity are never written."""
        for value in (float("nan"), float("inf")):
            self.assertRaises(ValueError, encode_object, {"a": value})


class TextOfMemberTests(SynchronousTestCase):
    """The text of a member as it was sent."""

    @given(st.data(), st.lists(TEXTS, min_size=1, max_size=5, unique=True))
    def test_as_sent(self, data: st.DataObject, names: list[str]) -> None:
        """It is found whatever stands around it, in any white space and with any escapes."""
        wanted = data.draw(st.sampled_from(names))
        texts = {}
        members = []
        for name in names:
            space = [data.draw(WHITE) for _ in range(4)]
            value = data.draw(VALUES | TEXTS)
            texts[name] = json.dumps(value, indent=data.draw(st.sampled_from((None, 1))))
            key = "".join(f"\\u{unit:04x}" for unit in _utf_16(name))
            key = f'"{key}"' if data.draw(st.booleans()) else json.dumps(name)
            members.append(f"{space[0]}{key}{space[1]}:{space[2]}{texts[name]}{space[3]}")
        payload = f"{data.draw(WHITE)}{{{','.join(members)}}}{data.draw(WHITE)}".encode()
        decode_object(payload)
        self.assertEqual(text_of_member(payload, wanted), texts[wanted])

    def test_others_of_the_same_name(self) -> None:
        """Neither a member deeper down nor a string that looks like one is taken for it."""
        payload = b'{"x":{"p":1},"y":"\\"p\\":2","z":["p",3],"p" : {"p":4} }'
        self.assertEqual(text_of_member(payload, "p"), '{"p":4}')


def _utf_16(text: str) -> list[int]:
    units = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]


class PortableTests(SynchronousTestCase):
    """What the JSON readers of all languages take."""

    def test_strings(self) -> None:
        """Strings and keys with half a surrogate pair are not portable; pairs are characters and are."""
        for text in (r'"\ud800"', r'"\udc00"', r'"a\udfffb"', r'"\udc00\ud800"'):
            for value in (text, f"[{text}]", f'{{"k":{text}}}', f"{{{text}:1}}"):
                self.assertFalse(is_portable(json.loads(value), 3), value)
        self.assertTrue(is_portable(json.loads(r'{"\ud83d\ude00":["\ud83d\ude00","é\u0000"]}'), 3))

    def test_numbers(self) -> None:
        """Numbers must fit a double."""
        for text in ("1e999", "-1e999", "1" + "0" * 309, "-1" + "0" * 309):
            self.assertFalse(is_portable(json.loads(text), 1), text)
        for text in ("1.7e308", "-1.7e308", "1" + "0" * 308, "0", "true", "null", "1e-999"):
            self.assertTrue(is_portable(json.loads(text), 1), text)

    def test_depth(self) -> None:
        """So many objects and arrays may be inside each other, and no more."""
        for text in ("[[[1]]]", '{"a":[{"a":1}]}', '{"a":{"a":[]}}'):
            self.assertTrue(is_portable(json.loads(text), 3), text)
            self.assertFalse(is_portable(json.loads(text), 2), text)
        self.assertTrue(is_portable("no object at all", 0))
