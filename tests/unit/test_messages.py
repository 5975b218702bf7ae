"""The proxy's own frames: what is written, and what is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy import messages
from gameproxy.messages import (
    LONGEST_BAN,
    PROPERTIES_DEPTH,
    PROPERTIES_MAX,
    Admit,
    Admitted,
    Auth,
    BadMessage,
    Challenge,
    FrameType,
    Kick,
    Notice,
    Status,
    UnsupportedVersion,
    Welcome,
    decode_admit,
    decode_admitted,
    decode_auth,
    decode_challenge,
    decode_kick,
    decode_notice,
    decode_object,
    decode_status,
    decode_welcome,
)
from gameproxy.strict_json import DEPTH_MAX

Decoder = Callable[[bytes], object]
NONCE = "00112233445566778899aabbccddeeff"
TEXTS = st.text(st.characters(exclude_categories=()))
"""All strings, those with lone surrogates too."""
NONCES = st.binary(min_size=16, max_size=16).map(bytes.hex)
PROPERTIES = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5
).map(json.dumps)
AUTHS = st.builds(
    Auth,
    mechanism=TEXTS,
    ticket=st.none() | TEXTS,
    username=st.none() | TEXTS,
    password=st.none() | TEXTS,
    name=st.none() | TEXTS,
    game=st.none() | TEXTS,
    properties=PROPERTIES,
)
ADMITS = st.builds(
    Admit,
    session=TEXTS,
    player=TEXTS,
    address=TEXTS,
    game=TEXTS,
    server=TEXTS,
    nonce=NONCES,
    proxy_nonce=NONCES,
    properties=PROPERTIES,
)
FIELDS: dict[Decoder, dict[str, Any]] = {
    decode_auth: {
        "protocol": 1,
        "mechanism": "guest",
        "ticket": "t",
        "username": "u",
        "password": "p",
        "name": "n",
        "game": "g",
        "properties": {},
    },
    decode_welcome: {"session": "s", "player": "p", "server": "s", "game": "g"},
    decode_status: {"state": "queued", "position": 1, "message": "m"},
    decode_notice: {"code": "left", "message": "m"},
    decode_kick: {"code": "kicked", "message": "m", "ban_for": 1},
    decode_challenge: {"protocol": 1, "server": "s", "nonce": NONCE},
    decode_admit: {
        "session": "s",
        "player": "p",
        "address": "a",
        "game": "g",
        "server": "s",
        "nonce": NONCE,
        "proxy_nonce": NONCE,
        "properties": {},
    },
    decode_admitted: {"session": "s", "proxy_nonce": NONCE},
}
"""A payload that each decoder takes, with all keys that it knows."""
OPTIONAL: dict[Decoder, set[str]] = {
    decode_auth: {"ticket", "username", "password", "name", "game", "properties"},
    decode_status: {"position"},
    decode_kick: {"ban_for"},
}
TAKEN_TOO: tuple[tuple[str, object], ...] = (("ban_for", 1.5), ("position", None))
"""Values of another type than those above that are right as well."""


def as_sent(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def guest(properties: str) -> bytes:
    """The payload of an AUTH with this text as properties."""
    return f'{{"protocol":1,"mechanism":"guest","name":"a","properties":{properties}}}'.encode()


class RoundTripTests(SynchronousTestCase):
    """What was written is read as it was."""

    @given(AUTHS)
    def test_auth(self, auth: Auth) -> None:
        """AUTH, with any strings in it."""
        body = auth.encode()
        self.assertEqual(body[0], FrameType.AUTH)
        self.assertEqual(decode_auth(body[1:]), auth)

    @given(ADMITS)
    def test_admit(self, admit: Admit) -> None:
        """ADMIT, with any strings in it."""
        self.assertEqual(decode_admit(admit.to_json()), admit)

    @given(TEXTS, NONCES)
    def test_admitted(self, session: str, nonce: str) -> None:
        """ADMITTED."""
        admitted = Admitted(session, nonce)
        self.assertEqual(decode_admitted(admitted.to_json()), admitted)

    @given(TEXTS, NONCES)
    def test_challenge(self, server: str, nonce: str) -> None:
        """CHALLENGE."""
        challenge = Challenge(server, nonce)
        body = challenge.encode()
        self.assertEqual(body[0], FrameType.CHALLENGE)
        self.assertEqual(decode_challenge(body[1:]), challenge)

    @given(TEXTS, TEXTS)
    def test_welcome(self, session: str, player: str) -> None:
        """WELCOME."""
        welcome = Welcome(session, player, "garden-1", "garden")
        body = welcome.encode()
        self.assertEqual(body[0], FrameType.WELCOME)
        self.assertEqual(decode_welcome(body[1:]), welcome)

    @given(TEXTS, st.none() | st.integers(), TEXTS)
    def test_status(self, state: str, position: int | None, message: str) -> None:
        """STATUS, with and without a position."""
        body = messages.encode_status(state, position, message)
        self.assertEqual(body[0], FrameType.STATUS)
        self.assertEqual("position" in decode_object(body[1:]), position is not None)
        self.assertEqual(decode_status(body[1:]), Status(state, position, message))

    @given(TEXTS, TEXTS, st.sampled_from((FrameType.CLOSE, FrameType.REFUSED)))
    def test_notice(self, code: str, message: str, type_: FrameType) -> None:
        """CLOSE and REFUSED."""
        body = Notice(code, message).encode(type_)
        self.assertEqual(body[0], type_)
        self.assertEqual(decode_notice(body[1:]), Notice(code, message))

    @given(
        TEXTS,
        TEXTS,
        st.none() | st.floats(0, LONGEST_BAN, exclude_min=True),
    )
    def test_kick(self, code: str, message: str, ban_for: float | None) -> None:
        """KICK."""
        body = Kick(code, message, ban_for).encode()
        self.assertEqual(body[0], FrameType.KICK)
        self.assertEqual(decode_kick(body[1:]), Kick(code, message, ban_for))


class WriteTests(SynchronousTestCase):
    """Frames that only clients read."""

    def test_error(self) -> None:
        """ERROR says when to try again only where that is known."""
        self.assertEqual(
            messages.encode_error("banned", "No."), b'\x05{"code":"banned","message":"No."}'
        )
        self.assertEqual(
            messages.encode_error("internal", "No.", 2.5),
            b'\x05{"code":"internal","message":"No.","retry_after":2.5}',
        )

    def test_settings(self) -> None:
        """SETTINGS are any bytes behind the type."""
        self.assertEqual(messages.encode_settings(b"\x00\xff"), b"\x03\x00\xff")

    def test_no_secret_in_a_repr(self) -> None:
        """Neither ticket nor password stand in what a log could show of AUTH."""
        shown = repr(Auth("password", ticket="hush", username="u", password="hush"))
        self.assertNotIn("hush", shown)
        self.assertIn("'u'", shown)


class ReadTests(SynchronousTestCase):
    """What is taken, and what is not."""

    def test_types(self) -> None:
        """A key that is missing or has a value of any other type is refused; null is no string and no absence."""
        values: list[object] = [None, True, 1, 1.5, "x", [], {}, ["x"]]
        for decode, fields in FIELDS.items():
            decode(as_sent(**fields))
            for key, right in fields.items():
                without = {name: value for name, value in fields.items() if name != key}
                if key in OPTIONAL.get(decode, ()):
                    decode(as_sent(**without))
                else:
                    self.assertRaises(BadMessage, decode, as_sent(**without))
                for value in values:
                    if type(value) is type(right) or (key, value) in TAKEN_TOO:
                        continue
                    self.assertRaises(BadMessage, decode, as_sent(**{**fields, key: value}))

    def test_unknown_keys(self) -> None:
        """Keys that a decoder does not know change nothing, whatever is in them."""
        for decode, fields in FIELDS.items():
            self.assertEqual(
                decode(as_sent(**fields, later={"x": [None]})), decode(as_sent(**fields))
            )

    def test_version(self) -> None:
        """Another version is told apart from what is no version, and before all else: it may mean other things."""
        for decode in (decode_auth, decode_challenge):
            for version in (0, 2, -1, 10**400):
                self.assertRaises(UnsupportedVersion, decode, as_sent(protocol=version))
            for wrong in ("1", 1.0, True, None, [1]):
                error = self.assertRaises(BadMessage, decode, as_sent(protocol=wrong))
                self.assertNotIsInstance(error, UnsupportedVersion)

    def test_nonces(self) -> None:
        """Nonces are 32 lower-case hexadecimal digits of ASCII."""
        for decode, key in (
            (decode_challenge, "nonce"),
            (decode_admit, "nonce"),
            (decode_admit, "proxy_nonce"),
            (decode_admitted, "proxy_nonce"),
        ):
            for wrong in ("", NONCE[1:], NONCE + "0", NONCE.upper(), NONCE[1:] + "\u0661"):
                self.assertRaises(BadMessage, decode, as_sent(**{**FIELDS[decode], key: wrong}))

    def test_bans(self) -> None:
        """0 seconds are no ban, more than a century is a century, less than 0 and what is no number are refused."""
        for text, wanted in (
            ("0", None),
            ("0.0", None),
            ("-0.0", None),
            ("60", 60.0),
            ("0.5", 0.5),
            ("1e999", LONGEST_BAN),
            ("1" + "0" * 400, LONGEST_BAN),
            (str(LONGEST_BAN + 1), LONGEST_BAN),
        ):
            payload = f'{{"code":"kicked","message":"","ban_for":{text}}}'.encode()
            self.assertEqual(decode_kick(payload).ban_for, wanted, text)
        for text in ("-1", "-1e999", "-1" + "0" * 400, "NaN", "true", "null", '"60"'):
            payload = f'{{"code":"kicked","message":"","ban_for":{text}}}'.encode()
            self.assertRaises(BadMessage, decode_kick, payload)

    def test_properties_as_sent(self) -> None:
        """Properties keep their white space, escapes, order and numbers; without them they are an empty object."""
        for text in ("{}", "{ }", '{"b":1,\n"a":[1.0,1e2]}', '{"\\u00e9":"\\/"}', '{"é":"\\t"}'):
            self.assertEqual(decode_auth(guest(text)).properties, text)
            sent = Admit("s", "p", "a", "g", "s", NONCE, NONCE, text).to_json()
            self.assertIn(text.encode(), sent)
            self.assertEqual(decode_admit(sent).properties, text)
        self.assertEqual(
            decode_auth(b'{"protocol":1,"mechanism":"guest","name":"a"}').properties, "{}"
        )

    def test_properties_found_in_any_writing(self) -> None:
        """White space around the key and escapes in it do not hide properties, and do not count."""
        payload = b'{"x":"}","prop\\u0065rties"\t:\r\n {"a":1} , "protocol":1,"mechanism":"m"}'
        self.assertEqual(decode_auth(payload).properties, '{"a":1}')

    def test_size_of_properties(self) -> None:
        """512 bytes as sent are taken and 513 refused, white space and the bytes of UTF-8 counted."""
        for start, fill in (('{"a":"', "x"), ("{", " "), ('{"a":"é', "x")):
            end = '"}' if '"' in start else "}"
            room = PROPERTIES_MAX - len((start + end).encode())
            fits, too_long = start + fill * room + end, start + fill * (room + 1) + end
            self.assertEqual(decode_auth(guest(fits)).properties, fits)
            self.assertRaises(BadMessage, decode_auth, guest(too_long))

    def test_properties_that_could_break_a_game_server(self) -> None:
        """Deep nesting, half surrogate pairs and endless numbers do not get through to game servers."""
        inner = PROPERTIES_DEPTH - 1
        decode_auth(guest('{"a":' + "[" * inner + "]" * inner + "}"))
        for text in (
            '{"a":' + "[" * (inner + 1) + "]" * (inner + 1) + "}",
            '{"a":"\\ud800"}',
            '{"\\udc00":1}',
            '{"a":1e999}',
        ):
            self.assertRaises(BadMessage, decode_auth, guest(text))
            fields = {**FIELDS[decode_admit], "properties": "@"}
            payload = as_sent(**fields).replace(b'"@"', text.encode())
            self.assertRaises(BadMessage, decode_admit, payload)

    def test_deep_nesting_elsewhere(self) -> None:
        """Nesting beyond the limit is refused on every Python, also where it is skipped; up to it, readings agree."""
        for depth in (*range(1, 110), *range(110, 1950, 7)):
            payload = b'{"x":' + b"[" * depth + b"]" * depth
            payload += b',"protocol":1,"mechanism":"guest","properties":{}}'
            if depth < DEPTH_MAX:
                self.assertEqual(decode_auth(payload).properties, "{}")
            else:
                self.assertRaises(BadMessage, decode_auth, payload)

    def test_faults_name_no_content(self) -> None:
        """Errors name the fault and our own keys, never what was sent."""
        for decode, fields in FIELDS.items():
            for key in fields:
                error = self.assertRaises(
                    BadMessage, decode, as_sent(**{**fields, key: ["hush"], "hush": 1})
                )
                self.assertNotIn("hush", f"{error!r}{error.__cause__!r}")

    @given(
        st.binary(max_size=100)
        | st.dictionaries(
            st.sampled_from(sorted({key for fields in FIELDS.values() for key in fields})),
            st.none() | st.just(1) | st.integers() | st.floats() | TEXTS | st.just({}) | NONCES,
        ).map(lambda fields: json.dumps(fields).encode())
    )
    def test_anything(self, payload: bytes) -> None:
        """Decoders raise nothing but BadMessage, whatever comes."""
        for decode in FIELDS:
            with contextlib.suppress(BadMessage):
                decode(payload)

    def test_every_changed_byte(self) -> None:
        """A message with any one byte changed is refused or read without surprise."""
        for decode, fields in FIELDS.items():
            payload = as_sent(**fields)
            for at in range(len(payload)):
                for flip in (0x01, 0x20, 0x80, 0xFF):
                    changed = bytearray(payload)
                    changed[at] ^= flip
                    try:
                        decode(bytes(changed))
                    except BadMessage:
                        continue
                    decode_object(bytes(changed))  # what was taken is JSON
