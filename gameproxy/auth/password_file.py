"""The password file: lines of ``name:hash``, UTF-8. Nothing here knows Twisted; checking belongs into a thread.

Two kinds of hash are understood, salt and hash in base64 without padding:

- argon2id (RFC 9106) as ``$argon2id$v=19$m=65536,t=3,p=4$salt$hash``, ``m`` in KiB;
- scrypt (RFC 7914) as ``$scrypt$ln=14,r=8,p=1$salt$hash``, ``ln`` the binary logarithm of N.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from gameproxy.auth.names import GUEST_PREFIX, BadName, normalise_name

MEMORY_MAX: Final = 2**30
"""Most bytes of memory that checking one password may take."""
HASH_BYTES_MIN: Final = 16
"""Least length of a decoded hash, in bytes: a shorter one might be met by chance."""

_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,3})\$([^$]+)\$([^$]+)"
)
_SCRYPT = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([^$]+)\$([^$]+)")
_HASHER = PasswordHasher()


class PasswordFileError(Exception):
    """The password file cannot be used. The text names the line and the fault, never what stands there."""


@dataclass(frozen=True, slots=True)
class Argon2idHash:
    """An argon2id hash in its usual string form."""

    text: str = field(repr=False)

    def matches(self, password: bytes) -> bool:
        """Whether this is the hash of ``password``."""
        try:
            return _HASHER.verify(self.text, password)
        except VerifyMismatchError:
            return False


@dataclass(frozen=True, slots=True)
class ScryptHash:
    """A scrypt hash: ``n`` is the cost (a power of two), ``r`` the block size, ``p`` the parallelism."""

    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def memory(self) -> int:
        """Bytes that computing it takes, as OpenSSL counts them."""
        return 128 * self.r * (self.n + self.p + 2)

    def matches(self, password: bytes) -> bool:
        """Whether this is the hash of ``password``."""
        found = hashlib.scrypt(
            password,
            salt=self.salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=self.memory,
            dklen=len(self.digest),
        )
        return hmac.compare_digest(found, self.digest)


PasswordHash = Argon2idHash | ScryptHash


def _decode_base64(text: str) -> bytes:
    """Decode base64 without padding.

    :raises ValueError: it is anything else, or another text would give the same bytes.
    """
    try:
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        data = b""
    if b64encode(data).decode("ascii").rstrip("=") != text:
        raise ValueError("salt and hash must be base64 without padding")
    return data


def parse_hash(text: str) -> PasswordHash:
    """Read a hash in one of the two forms.

    :raises ValueError: it is of neither form, or its cost is impossible or takes too much memory.
    """
    if match := _ARGON2ID.fullmatch(text):
        memory, passes, lanes = (int(number) for number in match.groups()[:3])
        salt, digest = _decode_base64(match[4]), _decode_base64(match[5])
        if passes < 1 or lanes < 1 or memory < 8 * lanes or len(salt) < 8:
            raise ValueError("these parameters of argon2id are impossible")
        if memory * 1024 > MEMORY_MAX:
            raise ValueError("the hash takes too much memory")
        parsed: PasswordHash = Argon2idHash(text)
    elif match := _SCRYPT.fullmatch(text):
        log_n, r, p = (int(number) for number in match.groups()[:3])
        salt, digest = _decode_base64(match[4]), _decode_base64(match[5])
        if r < 1 or p < 1 or not 1 <= log_n < 16 * r:
            raise ValueError("these parameters of scrypt are impossible")
        parsed = ScryptHash(2**log_n, r, p, salt, digest)
        if parsed.memory > MEMORY_MAX:
            raise ValueError("the hash takes too much memory")
    else:
        raise ValueError("the hash must be argon2id or scrypt in its string form")
    if len(digest) < HASH_BYTES_MIN:
        raise ValueError(f"the hash must have {HASH_BYTES_MIN} bytes or more")
    return parsed


def hash_password(password: bytes, salt: bytes) -> str:
    """The argon2id hash of a password in its string form, with the cost that argon2-cffi recommends.

    :param salt: 16 fresh random bytes.
    """
    return _HASHER.hash(password, salt=salt)


def user_name(name: str) -> str:
    """The name of a user as the file has it: normalised, and no guest's.

    :raises BadName: nobody can have a password under that name.
    """
    name = normalise_name(name)
    if name.startswith(GUEST_PREFIX):
        raise BadName(f"a name that begins with {GUEST_PREFIX!r} is a guest's")
    return name


def parse_line(line: bytes) -> tuple[str, PasswordHash]:
    """Read ``name:hash``. The name may have colons of its own, a hash has none.

    :return: the name, normalised, and the hash.
    :raises ValueError: it is no such line. The text names the fault, never what stands there.
    """
    try:
        name, colon, text = line.decode("utf-8").rpartition(":")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if not colon:
        raise ValueError("must be name:hash")
    try:
        return user_name(name), parse_hash(text)
    except BadName as error:
        raise ValueError(str(error)) from None


_Stamp = tuple[int, int, int, int]


class PasswordFile:
    """The names and hashes of a file, read again when the file has changed.

    May be used from several threads: what was read is replaced as a whole, and at worst read twice. A changed file
    that cannot be used lets nobody in until it is repaired: a line that was taken out must not work on.

    :raises PasswordFileError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loaded = self._read()

    def check(self, name: str, password: bytes) -> bool:
        """Whether the name stands in the file with the hash of this password. Takes 50 to 400 ms of a processor.

        An unknown name costs what some known one costs (always the same one), so that time does not tell them apart.

        :param name: already normalised.
        :raises PasswordFileError: the file cannot be used now.
        """
        hashes = self._current()
        if name in hashes:
            return hashes[name].matches(password)
        if hashes:
            stand_ins = list(hashes.values())
            stand_ins[zlib.crc32(name.encode("utf-8")) % len(stand_ins)].matches(password)
        return False

    def _current(self) -> dict[str, PasswordHash]:
        stamp, hashes = self._loaded
        try:
            changed = _stamp(self._path.stat()) != stamp
        except OSError as error:
            raise PasswordFileError(f"cannot be read: {error.strerror}") from error
        if changed:
            self._loaded = _, hashes = self._read()
        return hashes

    def _read(self) -> tuple[_Stamp, dict[str, PasswordHash]]:
        try:
            with self._path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                lines = file.read().splitlines()
        except OSError as error:
            raise PasswordFileError(f"cannot be read: {error.strerror}") from error
        hashes: dict[str, PasswordHash] = {}
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                name, hash_ = parse_line(line)
            except ValueError as error:
                raise PasswordFileError(f"line {number}: {error}") from None
            if name in hashes:
                raise PasswordFileError(f"line {number}: the name stands in the file twice")
            hashes[name] = hash_
        return stamp, hashes


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
