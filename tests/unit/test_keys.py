"""Key files: what is read, what is refused, and how the farm's secret is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.keys import KeyFileError, read_key_file, read_secret, read_ticket_key

KEY = bytes(range(32))


def counting_entropy() -> Callable[[int], bytes]:
    """Entropy that can be foretold: each call gives its number, over and over."""
    calls = iter(range(1, 256))
    return lambda size: bytes([next(calls)]) * size


class KeyFiles(SynchronousTestCase):
    """A folder, and a file in it."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "key"

    def write(self, data: bytes, mode: int = 0o600) -> Path:
        """Put this into the file."""
        self.file.write_bytes(data)
        self.file.chmod(mode)
        return self.file

    def assert_refused(self, read: Callable[[Path], object], words: str) -> None:
        """The file is refused with these words, which hold nothing of what is in it."""
        with self.assertRaises(KeyFileError) as caught:
            read(self.file)
        self.assertIn(words, str(caught.exception))

    def no_entropy(self, size: int) -> bytes:
        """For secrets that must not be made."""
        raise AssertionError("a secret was to be made")

    def existing_secret(self, path: Path) -> bytes:
        """Read a secret that must not be made."""
        return read_secret(path, self.no_entropy)


class HexadecimalFiles(KeyFiles):
    """Game servers' keys and the farm's secret."""

    def test_key(self) -> None:
        """64 digits of either case, with white space around, are a key."""
        for text in (KEY.hex(), KEY.hex().upper(), f" \n{KEY.hex()}\r\n\t"):
            self.assertEqual(read_key_file(self.write(text.encode())), KEY)

    def test_longer_secret(self) -> None:
        """A secret may be longer than a key."""
        self.assertEqual(self.existing_secret(self.write((KEY + KEY).hex().encode())), KEY + KEY)

    def test_other_lengths(self) -> None:
        """A key has exactly 32 bytes, a secret no fewer."""
        self.write(KEY.hex().encode() + b"00")
        self.assert_refused(read_key_file, "exactly 64")
        self.write(KEY[1:].hex().encode())
        self.assert_refused(read_key_file, "exactly 64")
        self.assert_refused(self.existing_secret, "64 hexadecimal digits or more")

    def test_other_content(self) -> None:
        """An odd number of digits, space among them, other characters, and nothing at all are refused."""
        digits = KEY.hex().encode()
        for data in (
            digits + b"0",
            digits[:32] + b" " + digits[32:],
            digits[:-1] + b"g",
            b"",
            b"\xff" * 64,
        ):
            self.write(data)
            for read in (read_key_file, self.existing_secret):
                self.assert_refused(read, "hexadecimal digits")

    def test_for_others_to_read(self) -> None:
        """A file that others may read is refused; one for the group is not."""
        self.write(KEY.hex().encode(), 0o604)
        for read in (read_key_file, self.existing_secret):
            self.assert_refused(read, "may be read by others")
        self.file.chmod(0o640)
        self.assertEqual(read_key_file(self.file), KEY)

    def test_no_file(self) -> None:
        """A key file has to be there; a secret is only made by those who may."""
        self.assert_refused(read_key_file, "cannot be read: No such file or directory")

    def test_no_regular_file(self) -> None:
        """A folder is refused, and a named pipe without waiting for its writer."""
        os.mkfifo(self.file)
        self.assert_refused(read_key_file, "is no regular file")
        self.file.unlink()
        self.file.mkdir()
        self.assert_refused(read_key_file, "cannot be read: Is a directory")

    def test_too_large(self) -> None:
        """What is no key by its size is not read to its end."""
        self.write(b"0" * 65_537)
        self.assert_refused(self.existing_secret, "is too large")


class NewSecret(KeyFiles):
    """A secret that is not there is made."""

    def test_made(self) -> None:
        """It has 32 bytes of entropy, is for its owner alone, and nothing else is left behind."""
        secret = read_secret(self.file, counting_entropy())
        self.assertEqual(secret, bytes([2]) * 32)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(list(self.folder.iterdir()), [self.file])
        self.assertEqual(self.existing_secret(self.file), secret)

    def test_two_at_once(self) -> None:
        """Who comes second, though it saw no file, reads the secret of the first."""
        first = read_secret(self.file, counting_entropy())
        with mock.patch.object(Path, "exists", return_value=False):
            second = read_secret(self.file, lambda size: bytes([9]) * size)
        self.assertEqual(second, first)
        self.assertEqual(list(self.folder.iterdir()), [self.file])

    def test_never_half(self) -> None:
        """While it is being written there is no file of its name: a reader sees all of it or nothing."""
        seen: list[bool] = []

        def entropy(size: int) -> bytes:
            seen.append(self.file.is_file())
            return bytes(size)

        with mock.patch(
            "gameproxy.keys.os.fsync", side_effect=lambda _: seen.append(self.file.is_file())
        ):
            read_secret(self.file, entropy)
        self.assertEqual(seen, [False, False, False])

    def test_cannot_be_made(self) -> None:
        """Where it cannot be made that is told, and no other secret is made up."""
        self.file = self.folder / "absent" / "secret"
        self.assert_refused(
            lambda path: read_secret(path, counting_entropy()),
            "cannot be made: No such file or directory",
        )

    def test_link_to_nothing(self) -> None:
        """A link that leads nowhere is left as it is."""
        self.file.symlink_to(self.folder / "nowhere")
        self.assert_refused(lambda path: read_secret(path, counting_entropy()), "cannot be read")
        self.assertEqual(list(self.folder.iterdir()), [self.file])

    def test_disk_full(self) -> None:
        """A secret that could not be written whole does not appear, and no draft stays."""
        with mock.patch("gameproxy.keys.os.fsync", side_effect=OSError(28, "No space left")):
            self.assert_refused(
                lambda path: read_secret(path, counting_entropy()), "cannot be made: No space left"
            )
        self.assertEqual(list(self.folder.iterdir()), [])


def public_pem(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> bytes:
    """The public half in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


class TicketKeys(KeyFiles):
    """What tickets are verified with."""

    def refuses(self, algorithm: str, words: str) -> None:
        """The file is no key for this algorithm."""
        self.assert_refused(lambda path: read_ticket_key(path, algorithm), words)

    def test_shared(self) -> None:
        """HS256 takes the bytes as they are, without one newline at the end."""
        self.assertEqual(read_ticket_key(self.write(KEY), "HS256"), KEY)
        self.assertEqual(read_ticket_key(self.write(KEY + b" \n\n"), "HS256"), KEY + b" \n")

    def test_shared_too_short(self) -> None:
        """The newline does not count among the 32 bytes."""
        self.write(KEY[1:] + b"\n")
        self.refuses("HS256", "32 bytes or more")

    def test_shared_is_no_public_key(self) -> None:
        """A public key is never a shared one, or everybody could issue tickets."""
        self.write(public_pem(ED25519))
        self.refuses("HS256", "is in PEM")

    def test_shared_with_all(self) -> None:
        """A shared key that others may read is warned about; one that they may not is not, nor a public key."""
        with capturedLogs() as events:
            read_ticket_key(self.write(KEY, 0o640), "HS256")
            read_ticket_key(self.write(public_pem(P256), 0o644), "ES256")
            self.assertEqual(events, [])
            read_ticket_key(self.write(KEY, 0o644), "HS256")
        (event,) = events
        self.assertEqual((event["log_level"], event["path"]), (LogLevel.warn, str(self.file)))
        self.assertNotIn(repr(KEY), repr(event))

    def test_public(self) -> None:
        """EdDSA takes a key of Ed25519, ES256 one of P-256."""
        for private, algorithm in ((ED25519, "EdDSA"), (P256, "ES256")):
            key = read_ticket_key(self.write(public_pem(private)), algorithm)
            self.assertEqual(key, private.public_key())

    def test_of_another_kind(self) -> None:
        """A key is good for its own algorithm alone."""
        self.write(public_pem(ED25519))
        self.refuses("ES256", "is no key for ES256")
        self.write(public_pem(P256))
        self.refuses("EdDSA", "is no key for EdDSA")
        self.write(public_pem(P384))
        self.refuses("ES256", "another curve")
        self.write(public_pem(rsa.generate_private_key(65537, 2048)))
        self.refuses("ES256", "is no key for ES256")

    def test_private(self) -> None:
        """A private key does not belong into a proxy."""
        self.write(ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.refuses("EdDSA", "is a private key")

    def test_no_pem(self) -> None:
        """Anything else is no key."""
        for data in (b"", KEY, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
            self.write(data)
            self.refuses("EdDSA", "is no public key in PEM")

    def test_no_file(self) -> None:
        """The file has to be there."""
        self.refuses("ES256", "cannot be read")
