"""Certificates for tests, made when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import (
    AuthorityKeyIdentifier,
    BasicConstraints,
    Certificate,
    CertificateBuilder,
    DNSName,
    ExtendedKeyUsage,
    GeneralName,
    IPAddress,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    SubjectKeyIdentifier,
    random_serial_number,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
PURPOSES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Issued:
    """A certificate and its key.

    :ivar chain: the certificate, and those between it and the authority.
    """

    chain: tuple[Certificate, ...]
    key: ec.EllipticCurvePrivateKey

    @property
    def serial(self) -> int:
        """What tells it from others."""
        return self.chain[0].serial_number

    def write(self, folder: Path, name: str) -> Self:
        """Put ``NAME.pem`` and ``NAME.key`` into a folder, each in one step."""
        _replace(folder / f"{name}.pem", *map(pem, self.chain))
        _replace(
            folder / f"{name}.key",
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return self


class Authority:
    """One who issues certificates."""

    def __init__(self, name: str = "Test authority", issuer: Authority | None = None) -> None:
        self.name = Name([NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = issuer
        self.certificate = (issuer or self)._sign(
            self._builder(self.name, self.key, -DAY, 365 * DAY).add_extension(
                BasicConstraints(ca=True, path_length=None), critical=True
            )
        )

    def write(self, folder: Path, name: str) -> Path:
        """Put ``NAME.pem`` into a folder: for those who are to believe this authority."""
        path = folder / f"{name}.pem"
        _replace(path, pem(self.certificate))
        return path

    def issue(
        self,
        *names: str,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        purpose: str | None = None,
    ) -> Issued:
        """A certificate.

        :param names: whom it is for: host names and IP addresses.
        :param begins: from now; so is ``ends``.
        :param purpose: ``server`` or ``client``; ``None``: anything.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = Name([NameAttribute(NameOID.COMMON_NAME, names[0] if names else "nobody")])
        builder = self._builder(subject, key, begins, ends).add_extension(
            BasicConstraints(ca=False, path_length=None), critical=True
        )
        if names:
            alternatives = SubjectAlternativeName([_general(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        if purpose is not None:
            usage = ExtendedKeyUsage([PURPOSES[purpose]])
            builder = builder.add_extension(usage, critical=False)
        between = () if self._issuer is None else (self.certificate,)
        return Issued((self._sign(builder), *between), key)

    def _builder(
        self, subject: Name, key: ec.EllipticCurvePrivateKey, begins: timedelta, ends: timedelta
    ) -> CertificateBuilder:
        now = datetime.now(UTC)
        return (
            CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _sign(self, builder: CertificateBuilder) -> Certificate:
        return (
            builder.issuer_name(self.name)
            .add_extension(
                AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


def pem(certificate: Certificate) -> bytes:
    """A certificate as it stands in files."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, *parts: bytes) -> None:
    draft = path.with_name(f".{path.name}")
    draft.touch(mode=0o600)
    draft.write_bytes(b"".join(parts))
    draft.replace(path)


def _general(name: str) -> GeneralName:
    try:
        return IPAddress(ip_address(name))
    except ValueError:
        return DNSName(name)
