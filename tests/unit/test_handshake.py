"""The handshake: both sides against each other, and against whoever is not what it claims to be."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.handshake import (
    KEY_BYTES,
    MAC_BYTES,
    GameServerHandshake,
    HandshakeError,
    ProxyHandshake,
    admit_mac,
    admitted_mac,
    derive_server_key,
)
from gameproxy.messages import Admit, Admitted, Challenge, FrameType, Notice

SECRET = bytes(range(32))
SERVER = "garden-1"
KEY = derive_server_key(SECRET, SERVER)
NONCE = bytes(range(0xA0, 0xB0))
PROXY_NONCE = bytes(range(0xB0, 0xC0)).hex()
ADMIT = Admit(
    session="0123456789abcdef",
    player="guest:Zoë",
    address="203.0.113.7",
    game="garden",
    server=SERVER,
    nonce="",
    proxy_nonce=PROXY_NONCE,
    properties='{"skin": "fox"}',
)
"""As the proxy has it before it knows the game server's nonce."""


def proxy(admit: Admit = ADMIT, key: bytes = KEY) -> ProxyHandshake:
    return ProxyHandshake(admit, key)


def game_server(
    server: str = SERVER, key: bytes = KEY, nonce: bytes = NONCE
) -> GameServerHandshake:
    return GameServerHandshake(server=server, key=key, nonce=nonce)


def signed_admit(admit: Admit, key: bytes = KEY) -> bytes:
    """The body of an ADMIT that is just so, with the MAC that belongs to it."""
    json = admit.to_json()
    return bytes([FrameType.ADMIT]) + admit_mac(key, json) + json


def signed_admitted(admitted: Admitted, key: bytes = KEY) -> bytes:
    json = admitted.to_json()
    return bytes([FrameType.ADMITTED]) + admitted_mac(key, json) + json


def answer(handshake: ProxyHandshake, body: bytes) -> bytes:
    """What the proxy answers to a body, which must be bytes."""
    answered = handshake.receive(body)
    assert isinstance(answered, bytes)
    return answered


class TogetherTests(SynchronousTestCase):
    """Both sides as they are meant to meet."""

    def test_admitted(self) -> None:
        """With one key and the right names the session is let in, and the game server knows whom it lets in."""
        ours, theirs = proxy(), game_server()
        admit = theirs.receive(answer(ours, theirs.challenge()))
        self.assertEqual(admit, replace(ADMIT, nonce=NONCE.hex()))
        self.assertIsNone(ours.receive(theirs.accept(admit)))

    @given(st.text(), st.text(), st.binary(min_size=16, max_size=16), st.binary(min_size=32))
    def test_any_names(self, player: str, server: str, nonce: bytes, secret: bytes) -> None:
        """Names, ids, nonces and secrets of all kinds go through."""
        key = derive_server_key(secret, server)
        ours = proxy(replace(ADMIT, player=player, server=server), key)
        theirs = game_server(server, key, nonce)
        admit = theirs.receive(answer(ours, theirs.challenge()))
        self.assertEqual((admit.player, admit.nonce), (player, nonce.hex()))
        self.assertIsNone(ours.receive(theirs.accept(admit)))

    def test_refused(self) -> None:
        """REFUSED is handed on, whether it comes first or instead of ADMITTED."""
        body = Notice("full", "No room.").encode(FrameType.REFUSED)
        ours = proxy()
        self.assertEqual(ours.receive(body), Notice("full", "No room."))
        ours = proxy()
        ours.receive(game_server().challenge())
        self.assertEqual(ours.receive(body), Notice("full", "No room."))

    def test_another_key(self) -> None:
        """With another key than the proxy's the game server does not take ADMIT, and the proxy not ADMITTED."""
        other = derive_server_key(SECRET, "garden-2")
        ours, theirs = proxy(), game_server(key=other)
        body = answer(ours, theirs.challenge())
        self.assertRaises(HandshakeError, theirs.receive, body)
        self.assertRaises(
            HandshakeError, ours.receive, theirs.accept(replace(ADMIT, nonce=NONCE.hex()))
        )


class ProxySideTests(SynchronousTestCase):
    """What the proxy does not take."""

    def assert_fails(self, handshake: ProxyHandshake, body: bytes) -> None:
        error = self.assertRaises(HandshakeError, handshake.receive, body)
        self.assertNotIn("hush", f"{error!r}{error.__cause__!r}")

    def challenged(self) -> ProxyHandshake:
        ours = proxy()
        ours.receive(game_server().challenge())
        return ours

    def test_another_server(self) -> None:
        """CHALLENGE must name the game server that was selected: no other may take its place."""
        self.assert_fails(proxy(), game_server("garden-2").challenge())
        self.assert_fails(proxy(), Challenge("hush", NONCE.hex()).encode())

    def test_order(self) -> None:
        """CHALLENGE comes first and once, ADMITTED after it, nothing else at any time."""
        admitted = signed_admitted(Admitted(ADMIT.session, PROXY_NONCE))
        self.assert_fails(proxy(), admitted)
        self.assert_fails(self.challenged(), game_server().challenge())
        for type_ in range(256):
            if type_ != FrameType.ADMITTED:
                self.assert_fails(self.challenged(), bytes([type_]) + admitted[1:])
        for handshake in (proxy(), self.challenged()):
            for body in (b"", b"\x06{}", b"\x10", b'\x0b{"code":"kicked","message":"hush"}'):
                self.assert_fails(handshake, body)

    def test_bad_json(self) -> None:
        """CHALLENGE and REFUSED that are not what they should be fail the handshake, and so does another version."""
        for body in (
            b"\x07",
            b'\x07{"hush"',
            b'\x07{"protocol":2,"server":"garden-1","nonce":"hush"}',
            b'\x07{"protocol":1,"server":"garden-1","nonce":"hush"}',
            b"\x0a[]",
        ):
            self.assert_fails(proxy(), body)

    def test_another_session_or_nonce(self) -> None:
        """ADMITTED must be of this session and carry this proxy's nonce: none can be used again."""
        for admitted in (
            Admitted("another", PROXY_NONCE),
            Admitted(ADMIT.session, NONCE.hex()),
        ):
            self.assert_fails(self.challenged(), signed_admitted(admitted))

    def test_signed_nonsense(self) -> None:
        """A right MAC does not save a message that is none."""
        for json in (b"", b"{}", b"\xff", b'{"session":"0123456789abcdef"}'):
            body = bytes([FrameType.ADMITTED]) + admitted_mac(KEY, json) + json
            self.assert_fails(self.challenged(), body)

    def test_admit_sent_back(self) -> None:
        """What the proxy sent itself is no answer, even under the other type: the labels differ."""
        json = Admitted(ADMIT.session, PROXY_NONCE).to_json()
        body = bytes([FrameType.ADMITTED]) + admit_mac(KEY, json) + json
        self.assert_fails(self.challenged(), body)

    def test_any_changed_byte(self) -> None:
        """ADMITTED with any one byte changed, dropped or added is refused, in the type, the MAC and the JSON."""
        right = signed_admitted(Admitted(ADMIT.session, PROXY_NONCE))
        self.assertIsNone(self.challenged().receive(right))
        for at in range(len(right)):
            for flip in (0x01, 0x20, 0x80):
                changed = bytearray(right)
                changed[at] ^= flip
                self.assert_fails(self.challenged(), bytes(changed))
            self.assert_fails(self.challenged(), right[:at])
            self.assert_fails(self.challenged(), right[:at] + right[at + 1 :])
            self.assert_fails(self.challenged(), right[:at] + b" " + right[at:])
        self.assert_fails(self.challenged(), right + b" ")

    @given(st.binary(max_size=80))
    def test_anything(self, body: bytes) -> None:
        """Whatever comes, the handshake fails with HandshakeError or not at all."""
        for handshake in (proxy(), self.challenged()):
            try:
                answered = handshake.receive(body)
            except HandshakeError:
                continue
            self.assertIsInstance(answered, Notice)  # by chance, nothing more is to be had

    def test_keys_differ_by_server_and_secret(self) -> None:
        """Each game server has a key of its own, of 32 bytes, that changes with the secret."""
        keys = {
            derive_server_key(secret, server)
            for secret in (SECRET, SECRET + b"\0", bytes(32))
            for server in ("garden-1", "garden-2", "garden-", "", "gärden")
        }
        self.assertEqual(len(keys), 15)
        self.assertEqual({len(key) for key in keys}, {KEY_BYTES})


class GameServerSideTests(SynchronousTestCase):
    """What a game server does not take."""

    right = signed_admit(replace(ADMIT, nonce=NONCE.hex()))

    def assert_fails(self, body: bytes) -> None:
        error = self.assertRaises(HandshakeError, game_server().receive, body)
        self.assertNotIn("hush", f"{error!r}{error.__cause__!r}")

    def test_once(self) -> None:
        """One ADMIT is taken for a CHALLENGE: neither a second nor a right one after a wrong one."""
        theirs = game_server()
        theirs.receive(self.right)
        self.assertRaises(HandshakeError, theirs.receive, self.right)
        theirs = game_server()
        self.assertRaises(HandshakeError, theirs.receive, b"\x08")
        self.assertRaises(HandshakeError, theirs.receive, self.right)

    def test_another_nonce(self) -> None:
        """ADMIT of another connection is not taken, though its MAC is right: none can be used again."""
        self.assert_fails(signed_admit(replace(ADMIT, nonce=PROXY_NONCE)))

    def test_another_server(self) -> None:
        """ADMIT for another game server is not taken, though the keys be the same (key_file)."""
        self.assert_fails(signed_admit(replace(ADMIT, nonce=NONCE.hex(), server="garden-2")))

    def test_signed_nonsense(self) -> None:
        """A right MAC does not save a message that is none."""
        for json in (b"", b"{}", b'{"hush"', b"\xff", ADMIT.to_json()):
            self.assert_fails(bytes([FrameType.ADMIT]) + admit_mac(KEY, json) + json)

    def test_other_label(self) -> None:
        """The MAC of an ADMITTED is no good for ADMIT."""
        json = self.right[1 + MAC_BYTES :]
        self.assert_fails(bytes([FrameType.ADMIT]) + admitted_mac(KEY, json) + json)

    def test_other_types(self) -> None:
        """Nothing but ADMIT is taken."""
        self.assert_fails(b"")
        for type_ in range(256):
            if type_ != FrameType.ADMIT:
                self.assert_fails(bytes([type_]) + self.right[1:])

    def test_any_changed_byte(self) -> None:
        """ADMIT with any one byte changed, dropped or added is refused, in the type, the MAC and the JSON."""
        self.assertEqual(game_server().receive(self.right).player, "guest:Zoë")
        for at in range(len(self.right)):
            for flip in (0x01, 0x20, 0x80):
                changed = bytearray(self.right)
                changed[at] ^= flip
                self.assert_fails(bytes(changed))
            self.assert_fails(self.right[:at])
            self.assert_fails(self.right[:at] + self.right[at + 1 :])
            self.assert_fails(self.right[:at] + b" " + self.right[at:])
        self.assert_fails(self.right + b" ")

    @settings(max_examples=50)
    @given(st.binary(max_size=200))
    def test_anything(self, payload: bytes) -> None:
        """Whatever comes is refused with HandshakeError."""
        self.assert_fails(payload)
        self.assert_fails(bytes([FrameType.ADMIT]) + payload)


class MacTests(SynchronousTestCase):
    """The MACs, by hmac alone."""

    @given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
    def test_what_is_covered(self, key: bytes, json: bytes) -> None:
        """HMAC-SHA256 over label, zero byte and the bytes as sent."""
        for mac, label in (
            (admit_mac, b"gameproxy/1 admit"),
            (admitted_mac, b"gameproxy/1 admitted"),
        ):
            wanted = hmac.new(key, label + b"\0" + json, hashlib.sha256).digest()
            self.assertEqual(mac(key, json), wanted)
