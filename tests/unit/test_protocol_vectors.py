"""The bytes in docs/protocol.md against the code, in both directions, and against nothing but hashlib and hmac."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy import messages
from gameproxy.frame_format import FORMATS
from gameproxy.framing import Framer
from gameproxy.handshake import (
    GameServerHandshake,
    ProxyHandshake,
    admit_mac,
    admitted_mac,
    derive_server_key,
)
from gameproxy.interfaces import Peer
from gameproxy.messages import BadMessage, FrameType, UnsupportedVersion, decode_object
from gameproxy.proxy_header import encode_v2
from gameproxy.reasons import CloseReason

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
Vector = dict[str, str]


def read_vectors(page: str) -> list[Vector]:
    """The blocks ``text vector`` of a page, read as the page itself says."""
    found = []
    for block in re.findall(r"^```text vector\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL):
        lines = block.replace("\n  ", "").split("\n")
        found.append({name: value.strip() for name, _, value in (x.partition(":") for x in lines)})
    return found


VECTORS = read_vectors(PAGE)


def of_kind(kind: str) -> list[Vector]:
    return [vector for vector in VECTORS if vector["vector"] == kind]


def cut(format: str, stream: bytes) -> bytes:
    """The body of the only frame of a stream."""
    framer = Framer(FORMATS[format])
    framer.feed(stream)
    [body] = framer.frames()
    assert framer.pending == 0
    return body


def hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 of 32 bytes without salt, written from RFC 5869 alone: one block of the expansion."""
    pseudorandom_key = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom_key, info + b"\x01", hashlib.sha256).digest()


def auth(fields: dict[str, Any]) -> bytes:
    properties = json.dumps(fields.pop("properties"), separators=(",", ":"))
    assert fields.pop("protocol") == 1
    return messages.Auth(**fields, properties=properties).encode()


def challenge(fields: dict[str, Any]) -> bytes:
    assert fields.pop("protocol") == 1
    return messages.Challenge(**fields).encode()


def status(fields: dict[str, Any]) -> bytes:
    return messages.encode_status(fields["state"], fields.get("position"), fields["message"])


def error(fields: dict[str, Any]) -> bytes:
    return messages.encode_error(fields["code"], fields["message"], fields.get("retry_after"))


def notice(type_: FrameType) -> Callable[[dict[str, Any]], bytes]:
    return lambda fields: messages.Notice(**fields).encode(type_)


def admit(fields: dict[str, Any]) -> messages.Admit:
    properties = json.dumps(fields.pop("properties"), separators=(",", ":"))
    return messages.Admit(**fields, properties=properties)


ENCODERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "AUTH": auth,
    "WELCOME": lambda fields: messages.Welcome(**fields).encode(),
    "STATUS": status,
    "ERROR": error,
    "CLOSE": notice(FrameType.CLOSE),
    "CHALLENGE": challenge,
    "REFUSED": notice(FrameType.REFUSED),
    "KICK": lambda fields: messages.Kick(**fields).encode(),
}
"""From the JSON of a vector to the body that the code writes; SETTINGS, ADMIT and ADMITTED have no plain JSON."""

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "AUTH": messages.decode_auth,
    "WELCOME": messages.decode_welcome,
    "STATUS": messages.decode_status,
    "ERROR": messages.decode_notice,
    "CLOSE": messages.decode_notice,
    "CHALLENGE": messages.decode_challenge,
    "ADMIT": messages.decode_admit,
    "ADMITTED": messages.decode_admitted,
    "REFUSED": messages.decode_notice,
    "KICK": messages.decode_kick,
}
"""From a payload's JSON to what the code makes of it, for all frames but SETTINGS."""


class FrameVectorTests(SynchronousTestCase):
    """Frame formats, and frames of every type."""

    def test_every_frame_is_there(self) -> None:
        """In int32 there is a vector for each type, and each format with a name has frames too."""
        frames = of_kind("frame")
        in_int32 = {vector["frame"] for vector in frames if vector["format"] == "int32"}
        self.assertEqual(in_int32, {type_.name for type_ in FrameType})
        for kind in ("frame", "format", "header"):
            self.assertEqual({vector["format"] for vector in of_kind(kind)}, set(FORMATS))

    def test_formats(self) -> None:
        """Each format writes a body as the page says, and gets it back."""
        for vector in of_kind("format"):
            body, stream = bytes.fromhex(vector["body"]), bytes.fromhex(vector["hex"])
            self.assertEqual(FORMATS[vector["format"]].encode(body), stream)
            self.assertEqual(cut(vector["format"], stream), body)

    def test_headers(self) -> None:
        """Each format writes longer lengths as the page says, and reads them."""
        for vector in of_kind("header"):
            format, length = FORMATS[vector["format"]], int(vector["length"])
            header = bytes.fromhex(vector["hex"])
            self.assertEqual(format.header(length), header)
            self.assertEqual(format.parse(header, 0), (len(header), length))

    def test_frames_say_what_stands_beside_them(self) -> None:
        """The bytes of a frame are its type, its MAC if it has one, and its JSON or payload."""
        for vector in of_kind("frame"):
            payload = bytes.fromhex(vector.get("payload", vector.get("mac", "")))
            payload += vector.get("json", "").encode("utf-8")
            body = cut(vector["format"], bytes.fromhex(vector["hex"]))
            self.assertEqual(body, bytes([FrameType[vector["frame"]]]) + payload)

    def test_code_writes_these_frames(self) -> None:
        """From what a frame says the code writes its very bytes (ADMIT and ADMITTED: see HandshakeVectorTests)."""
        for vector in of_kind("frame"):
            if vector["frame"] == "SETTINGS":
                body = messages.encode_settings(bytes.fromhex(vector["payload"]))
            elif vector["frame"] in ENCODERS:
                body = ENCODERS[vector["frame"]](json.loads(vector["json"]))
            else:
                continue
            self.assertEqual(FORMATS[vector["format"]].encode(body).hex(), vector["hex"])

    def test_code_reads_these_frames(self) -> None:
        """From the bytes of a frame the code reads what it says."""
        for vector in of_kind("frame"):
            if "json" not in vector:
                continue  # SETTINGS, which nobody but the game reads
            mac = bytes.fromhex(vector.get("mac", ""))
            payload = cut(vector["format"], bytes.fromhex(vector["hex"]))[1 + len(mac) :]
            wanted = json.loads(vector["json"])
            self.assertEqual(decode_object(payload), wanted)
            read = DECODERS[vector["frame"]](payload)
            for name, value in wanted.items():
                if name == "properties":
                    self.assertEqual(json.loads(read.properties), value)
                elif name not in ("protocol", "retry_after"):
                    self.assertEqual(getattr(read, name), value)

    def test_types_of_the_table(self) -> None:
        """The table of types on the page is that of the code."""
        rows = re.findall(r"^\| (0x0[0-9A-F]) \| \[([A-Z]+)\]", PAGE, re.MULTILINE)
        self.assertEqual(
            [(int(number, 16), name) for number, name in rows],
            [(type_.value, type_.name) for type_ in FrameType],
        )

    def test_formats_of_the_table(self) -> None:
        """The table of formats on the page is that of the code."""
        [names] = re.findall(r"^\| field \| what it says \|(.*)\|$", PAGE, re.MULTILINE)
        formats = [FORMATS[name] for name in re.findall(r"`([^`]+)`", names)]
        self.assertEqual(len(formats), len(FORMATS))
        fields = ("length_offset", "length_bytes", "byte_order", "length_adjustment", "max_frame")
        for field in fields:
            [row] = re.findall(rf"^\| `{field}` \|.*$", PAGE, re.MULTILINE)
            cells = [cell.strip().strip('`"') for cell in row.split("|")[3:-1]]
            for cell, format in zip(cells, formats, strict=True):
                if cell != "-":
                    self.assertEqual(cell, str(getattr(format, field)), field)


class HandshakeVectorTests(SynchronousTestCase):
    """Keys, MACs, and the two sides of the handshake."""

    def frame(self, name: str) -> Vector:
        """The one vector of a frame in int32."""
        wanted = (name, "int32")
        [vector] = [one for one in of_kind("frame") if (one["frame"], one["format"]) == wanted]
        return vector

    def body(self, name: str) -> bytes:
        """Its body."""
        return cut("int32", bytes.fromhex(self.frame(name)["hex"]))

    def test_keys(self) -> None:
        """Keys follow from secret and id, by the code and by RFC 5869 written out."""
        self.assertEqual(len(of_kind("key")), 2)
        for vector in of_kind("key"):
            secret, server = bytes.fromhex(vector["secret"]), vector["server"]
            info = b"gameproxy/1 server " + server.encode("utf-8")
            self.assertEqual(info.hex(), vector["info"])
            self.assertEqual(derive_server_key(secret, server).hex(), vector["key"])
            self.assertEqual(hkdf(secret, info).hex(), vector["key"])

    def test_macs(self) -> None:
        """MACs cover label, zero byte and JSON, by the code and by hmac alone; and stand so in the frames."""
        admit_vector, admitted_vector = of_kind("mac")
        key = of_kind("key")[0]["key"]
        for vector, mac_of, name in (
            (admit_vector, admit_mac, "ADMIT"),
            (admitted_vector, admitted_mac, "ADMITTED"),
        ):
            self.assertEqual(vector["key"], key)
            self.assertEqual(vector["label"], f"gameproxy/1 {name.lower()}")
            text = vector["json"].encode("utf-8")
            covered = vector["label"].encode("ascii") + b"\0" + text
            own = hmac.new(bytes.fromhex(key), covered, hashlib.sha256).hexdigest()
            self.assertEqual(own, vector["mac"])
            self.assertEqual(mac_of(bytes.fromhex(key), text).hex(), vector["mac"])
            frame = self.frame(name)
            self.assertEqual((frame["json"], frame["mac"]), (vector["json"], vector["mac"]))

    def test_proxy_side(self) -> None:
        """The proxy answers this CHALLENGE with this ADMIT, and takes this ADMITTED."""
        wanted = admit(json.loads(self.frame("ADMIT")["json"]))
        handshake = ProxyHandshake(wanted, bytes.fromhex(of_kind("key")[0]["key"]))
        self.assertEqual(handshake.receive(self.body("CHALLENGE")), self.body("ADMIT"))
        self.assertIsNone(handshake.receive(self.body("ADMITTED")))

    def test_game_server_side(self) -> None:
        """The game server sends this CHALLENGE, takes this ADMIT, and answers with this ADMITTED."""
        said = json.loads(self.frame("CHALLENGE")["json"])
        handshake = GameServerHandshake(
            server=said["server"],
            key=bytes.fromhex(of_kind("key")[0]["key"]),
            nonce=bytes.fromhex(said["nonce"]),
        )
        self.assertEqual(handshake.challenge(), self.body("CHALLENGE"))
        admitted = handshake.receive(self.body("ADMIT"))
        self.assertEqual(admitted, admit(json.loads(self.frame("ADMIT")["json"])))
        self.assertEqual(handshake.accept(admitted), self.body("ADMITTED"))

    def test_proxy_headers(self) -> None:
        """Headers of the PROXY protocol are as on the page."""
        self.assertEqual(len(of_kind("proxy-v2")), 3)
        for vector in of_kind("proxy-v2"):
            source, port = vector["source"].split()
            target, target_port = vector["destination"].split()
            tls = vector.get("tls", "")
            peer = Peer(source, int(port), bool(tls), target, int(target_port))
            self.assertEqual(encode_v2(peer, vector["session"], tls).hex(), vector["hex"])


class HostileVectorTests(SynchronousTestCase):
    """What AUTH may look like, and what it may not."""

    def test_properties_as_sent(self) -> None:
        """Properties are cut out of an AUTH to the byte."""
        [vector] = of_kind("properties")
        decoded = messages.decode_auth(bytes.fromhex(vector["hex"]))
        self.assertEqual(decoded.properties, vector["properties"])

    def test_refused(self) -> None:
        """Each payload is refused, for the reason that the page gives."""
        self.assertGreaterEqual(len(of_kind("refused")), 15)
        for vector in of_kind("refused"):
            error = self.assertRaises(
                BadMessage, messages.decode_auth, bytes.fromhex(vector["hex"])
            )
            other_version = isinstance(error, UnsupportedVersion)
            code = "unsupported_version" if other_version else "protocol_error"
            self.assertEqual(code, vector["code"], vector["why"])

    def test_close_reasons_of_the_table(self) -> None:
        """The page has every close reason once, in the order of the code, with advice."""
        section = PAGE.partition("\n## Close reasons\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", section, re.MULTILINE)
        self.assertEqual(rows, [reason.value for reason in CloseReason])
