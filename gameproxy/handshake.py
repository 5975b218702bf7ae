"""How the proxy and a game server prove themselves to each other, without I/O.

The game server speaks first::

    game server                         proxy
        CHALLENGE {server, nonce}  ->
                                   <-   ADMIT    MAC {session, player, ..., nonce, proxy_nonce}
        ADMITTED MAC {session, proxy_nonce}  ->

Each MAC is HMAC-SHA256 (RFC 2104) under the game server's own key over a label, a zero byte and the JSON as sent; the
labels differ, so that neither message can be sent back as the other. The key is derived with HKDF-SHA256 (RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gameproxy.messages import (
    Admit,
    Admitted,
    BadMessage,
    Challenge,
    FrameType,
    Notice,
    decode_admit,
    decode_admitted,
    decode_challenge,
    decode_notice,
)

KEY_BYTES: Final = 32
"""Of a game server's key."""
MAC_BYTES: Final = 32
"""Of a MAC (HMAC-SHA256)."""
NONCE_BYTES: Final = 16
"""Of a nonce, which is sent as twice as many hexadecimal digits."""
ADMIT_TIMEOUT: Final = 5.0
"""Seconds that a game server waits for ADMIT before it closes the connection."""
_ADMIT_LABEL: Final = b"gameproxy/1 admit\0"
_ADMITTED_LABEL: Final = b"gameproxy/1 admitted\0"


class HandshakeError(Exception):
    """The other side did not prove what it had to. The text is for logs and holds nothing that was sent."""


def derive_server_key(secret: bytes, server_id: str) -> bytes:
    """The 32-byte key of one game server.

    :param secret: the farm's secret, decoded from its file.
    :param server_id: the game server's id in the farm's table.
    """
    info = b"gameproxy/1 server " + server_id.encode("utf-8")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def admit_mac(key: bytes, json: bytes) -> bytes:
    """The 32-byte MAC of ADMIT over its JSON as sent."""
    return hmac.digest(key, _ADMIT_LABEL + json, hashlib.sha256)


def admitted_mac(key: bytes, json: bytes) -> bytes:
    """The 32-byte MAC of ADMITTED over its JSON as sent."""
    return hmac.digest(key, _ADMITTED_LABEL + json, hashlib.sha256)


def _check_mac(expected: bytes, payload: bytes, name: str) -> None:
    if not hmac.compare_digest(expected, payload[:MAC_BYTES]):
        raise HandshakeError(f"the MAC of {name} is wrong")


def _split(body: bytes, wanted: FrameType) -> bytes:
    if not body or body[0] != wanted:
        raise HandshakeError(f"{wanted.name} was expected")
    return body[1:]


class ProxyHandshake:
    """The proxy's side, for one connection to a game server. Feed it bodies in the order in which they come.

    :param admit: whom to admit, where, and with which fresh ``proxy_nonce``; its ``nonce`` comes with CHALLENGE.
    :param key: the 32-byte key of the game server that was selected.
    """

    def __init__(self, admit: Admit, key: bytes) -> None:
        self._admit = admit
        self._key = key
        self._challenged = False

    def receive(self, body: bytes) -> bytes | Notice | None:
        """Take the game server's next body.

        KICK is not taken here: before ADMITTED the game server has proved nothing, and must not have players banned.

        :return: the body to answer with (ADMIT); a :class:`~gameproxy.messages.Notice` when the game server sent
            REFUSED; ``None`` when it has admitted the session.
        :raises HandshakeError: anything else came. The connection must be closed.
        """
        try:
            if body[:1] == bytes([FrameType.REFUSED]):
                return decode_notice(body[1:])
            if not self._challenged:
                return self._answer(_split(body, FrameType.CHALLENGE))
            self._check(_split(body, FrameType.ADMITTED))
        except BadMessage as error:
            raise HandshakeError(str(error)) from None
        return None

    def _answer(self, payload: bytes) -> bytes:
        challenge = decode_challenge(payload)
        if challenge.server != self._admit.server:
            raise HandshakeError("another game server answered than the one selected")
        self._challenged = True
        json = replace(self._admit, nonce=challenge.nonce).to_json()
        return bytes([FrameType.ADMIT]) + admit_mac(self._key, json) + json

    def _check(self, payload: bytes) -> None:
        json = payload[MAC_BYTES:]
        _check_mac(admitted_mac(self._key, json), payload, "ADMITTED")
        admitted = decode_admitted(json)
        if admitted.session != self._admit.session:
            raise HandshakeError("ADMITTED is of another session")
        if admitted.proxy_nonce != self._admit.proxy_nonce:
            raise HandshakeError("ADMITTED carries another nonce")


class GameServerHandshake:
    """The game server's side, for one connection from a proxy.

    :param server: this game server's id.
    :param key: its 32-byte key.
    :param nonce: 16 fresh random bytes.
    """

    def __init__(self, *, server: str, key: bytes, nonce: bytes) -> None:
        self._server = server
        self._key = key
        self._nonce = nonce.hex()
        self._used = False

    def challenge(self) -> bytes:
        """The body to send as soon as the proxy has connected."""
        return Challenge(self._server, self._nonce).encode()

    def receive(self, body: bytes) -> Admit:
        """Take the proxy's ADMIT.

        :raises HandshakeError: it is none, or not for this connection. The connection must be closed.
        """
        if self._used:
            raise HandshakeError("one ADMIT is accepted for a CHALLENGE")
        self._used = True
        payload = _split(body, FrameType.ADMIT)
        json = payload[MAC_BYTES:]
        _check_mac(admit_mac(self._key, json), payload, "ADMIT")
        try:
            admit = decode_admit(json)
        except BadMessage as error:
            raise HandshakeError(str(error)) from None
        if not hmac.compare_digest(admit.nonce, self._nonce):
            raise HandshakeError("ADMIT carries another nonce")
        if admit.server != self._server:
            raise HandshakeError("ADMIT is for another game server")
        return admit

    def accept(self, admit: Admit) -> bytes:
        """The body that lets the session in."""
        json = Admitted(admit.session, admit.proxy_nonce).to_json()
        return bytes([FrameType.ADMITTED]) + admitted_mac(self._key, json) + json
