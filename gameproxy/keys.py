"""The files that keys are in (docs/configuration, "Keys and secrets").

The farm's secret and game servers' keys are hexadecimal digits, with white space around them ignored, in files that
others may not read. What is wrong with a file is told without a byte of it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.logger import Logger

from gameproxy.interfaces import Entropy

KEY_BYTES: Final = 32
TicketKey = bytes | Ed25519PublicKey | EllipticCurvePublicKey
"""What tickets are verified with: of HS256, EdDSA and ES256."""
_FILE_MAX: Final = 65_536
_log = Logger()


Mark = tuple[int, ...]
"""What changes when a file is written or replaced; empty while there is none."""


class KeyFileError(Exception):
    """A key file cannot be used. The text says why, and holds nothing of what is in it."""


def read_key_file(path: Path) -> bytes:
    """Read the 32-byte key of a game server: exactly 64 hexadecimal digits.

    :raises KeyFileError: the file cannot be read, others may read it, or something else is in it.
    """
    key = _decode(read_private(path))
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"must have exactly {2 * KEY_BYTES} hexadecimal digits")
    return key


def read_secret(path: Path, entropy: Entropy) -> bytes:
    """Read the farm's secret, of 32 or more bytes; make it first if there is no such file.

    Proxies that make it at the same time all read the one that was there first.

    :raises KeyFileError: the file can neither be read nor made, others may read it, or no secret is in it.
    """
    try:
        if not path.exists():
            _make(path, entropy)
    except OSError as error:
        raise KeyFileError(f"cannot be made: {error.strerror}") from error
    return read_secret_file(path)


def read_secret_file(path: Path) -> bytes:
    """Read the farm's secret: 64 or more hexadecimal digits, an even number.

    :raises KeyFileError: the file cannot be read, others may read it, or no secret is in it.
    """
    secret = _decode(read_private(path))
    if len(secret) < KEY_BYTES:
        raise KeyFileError(f"must have {2 * KEY_BYTES} hexadecimal digits or more")
    return secret


def read_ticket_key(path: Path, algorithm: str) -> TicketKey:
    """Read what tickets are verified with.

    A file of HS256 that others may read is logged as a warning: they can issue tickets.

    :param algorithm: ``HS256`` (the raw bytes of the file, 32 or more, without one newline at its end), ``EdDSA`` or
        ``ES256`` (a public key in PEM, RFC 7468, of Ed25519 or of the curve P-256).
    :raises KeyFileError: the file cannot be read, or holds no key for this algorithm.
    """
    data, mode = read_file(path)
    if algorithm == "HS256":
        if mode & stat.S_IROTH:
            _log.warn(
                "Others may read {path}, and issue tickets with it: chmod o-r", path=str(path)
            )
        return _shared_key(data)
    if b"PRIVATE KEY-----" in data:
        raise KeyFileError("is a private key: only its public key belongs here")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError("is no public key in PEM") from error
    if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey):
        return key
    if algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey):
        if isinstance(key.curve, SECP256R1):
            return key
        raise KeyFileError("is of another curve than P-256")
    raise KeyFileError(f"is no key for {algorithm}")


def _shared_key(data: bytes) -> bytes:
    # Were a public key taken for a shared one, everybody could sign tickets with it.
    if b"-----BEGIN" in data:
        raise KeyFileError("is in PEM, but HS256 takes raw bytes")
    key = data.removesuffix(b"\n")
    if len(key) < KEY_BYTES:
        raise KeyFileError(f"must have {KEY_BYTES} bytes or more")
    return key


def read_file(path: Path, largest: int = _FILE_MAX) -> tuple[bytes, int]:
    """The content and mode of a regular file. Its mode is looked at when it is open already, so it is this file's.

    :param largest: most bytes that it may have.
    :raises KeyFileError: it cannot be read, or is none, or too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError("is no regular file")
            data = file.read(largest + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from error
    if len(data) > largest:
        raise KeyFileError("is too large for what it should be")
    return data, mode


def file_mark(path: Path) -> Mark:
    """The mark of a file as it is now."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_private(path: Path) -> bytes:
    """The content of a file that others may not read.

    :raises KeyFileError: it cannot be read, or others may read it.
    """
    data, mode = read_file(path)
    if mode & stat.S_IROTH:
        raise KeyFileError("may be read by others: chmod 600, and make a new key")
    return data


def _decode(data: bytes) -> bytes:
    digits = data.strip()
    if not re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", digits):
        raise KeyFileError("must have an even number of hexadecimal digits, and nothing else")
    return bytes.fromhex(digits.decode("ascii"))


def _make(path: Path, entropy: Entropy) -> None:
    """Write a new secret under a name of its own, then give it its real name unless another proxy was faster."""
    draft = path.with_name(f".{path.name}.{entropy(8).hex()}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        with draft.open("wb") as file:
            file.write(entropy(KEY_BYTES).hex().encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        _log.info("Another proxy made {path}", path=str(path))
    finally:
        draft.unlink()


def _without_waiting(path: str, flags: int) -> int:
    # Otherwise to open a named pipe would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)
