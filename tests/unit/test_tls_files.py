"""gameproxy.tls: files that are read, that change, and that cannot be used"""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from OpenSSL.SSL import Connection
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import Config, ServerConfig, TlsConfig
from gameproxy.tls import LOOK_INTERVAL, Credentials, CredentialsError, TlsServerFactory
from tests.authority import Authority

SERVER = ServerConfig(id="s", game="g", host="192.0.2.1", port=1, capacity=1, tls=True)


class TlsTestCase(SynchronousTestCase):
    """Has a folder with what an authority has issued."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = Authority()
        self.authority.write(self.folder, "ca")
        self.shown = self.authority.issue("play.example").write(self.folder, "shown")
        self.clock = Clock()
        self.clock.rightNow = datetime.now(UTC).timestamp()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: object) -> None:
        """Keep what is logged."""
        self.lines.append(formatEvent(event) or "")  # type: ignore[arg-type]

    def credentials(self, servers: tuple[ServerConfig, ...] = (), **more: str) -> Credentials:
        """What a proxy has that shows ``shown.pem``."""
        section = TlsConfig.model_validate({"certificate": "shown.pem", "key": "shown.key", **more})
        return Credentials(Config(tls=section, folder=self.folder, servers=servers), self.clock)

    def problems(self, **more: str) -> list[str]:
        """What is wrong with the files, without the folder."""
        with self.assertRaises(CredentialsError) as caught:
            self.credentials(**more)
        return str(caught.exception).replace(f"{self.folder}/", "").splitlines()


class FilesTests(TlsTestCase):
    """What can be in them."""

    def test_faults(self) -> None:
        """Each fault is told with its place and file, and without a byte of what is in it."""
        (self.folder / "empty").touch()
        (self.folder / "text").write_text("\x1b[2Jhello")
        (self.folder / "text").chmod(0o600)
        self.put("other.key", Authority().issue().key)
        self.put("secret.key", self.shown.key, serialization.BestAvailableEncryption(b"sesame"))
        self.put("dsa.key", dsa.generate_private_key(2048))
        self.put("x25519.key", x25519.X25519PrivateKey.generate())
        self.put("open.key", self.shown.key).chmod(0o644)
        self.put_of_another_kind("odd.pem")
        for text, problem in (
            ("certificate = empty", "empty has no certificates in PEM in it"),
            ("certificate = text", "text has no certificates in PEM in it"),
            ("certificate = shown.key", "shown.key has no certificates in PEM in it"),
            ("certificate = .", "cannot be read: Is a directory"),
            ("certificate = none", "none cannot be read: No such file or directory"),
            ("certificate = odd.pem", "shown.key is not the key of the certificate"),
            ("key = text", "text is no private key in PEM"),
            ("key = shown.pem", "shown.pem is no private key in PEM"),
            ("key = other.key", "other.key is not the key of the certificate"),
            ("key = secret.key", "secret.key is encrypted: nobody is there to give its password"),
            ("key = dsa.key", "dsa.key is no key that TLS can use"),
            ("key = x25519.key", "x25519.key is no key that TLS can use"),
            ("key = open.key", "open.key may be read by others: chmod 600, and make a new key"),
            ("client_ca = empty", "empty has no certificates in PEM in it"),
            ("servers_ca = shown.key", "shown.key has no certificates in PEM in it"),
        ):
            key, _, name = text.partition(" = ")
            (line,) = self.problems(**{key: name})
            place = "key" if name == "odd.pem" else key
            self.assertTrue(line.startswith(f"tls.{place}: "), line)
            self.assertTrue(line.endswith(problem), line)

    def put(
        self,
        name: str,
        key: object,
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption(),  # noqa: B008
    ) -> Path:
        """Put a private key into a file that nobody else can read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(  # type: ignore[attr-defined]  # all of them have it
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return path

    def put_of_another_kind(self, name: str) -> None:
        """Put a certificate into a file whose key is of no kind that anybody knows."""
        elliptic, unknown = b"\x2a\x86\x48\xce\x3d\x02\x01", b"\x2a\x86\x48\xce\x3d\x02\x7f"
        der = self.shown.chain[0].public_bytes(serialization.Encoding.DER)
        self.assertIn(elliptic, der)
        text = b64encode(der.replace(elliptic, unknown)).decode()
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        body = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
        (self.folder / name).write_text(body)

    def test_authorities_of_another_kind(self) -> None:
        """Among the authorities there may be one whose key is of no kind that anybody knows: it vouches for nobody."""
        self.put_of_another_kind("odd.pem")
        self.credentials((SERVER,), client_ca="odd.pem", servers_ca="odd.pem")

    def test_all_faults_at_once(self) -> None:
        """One start tells of all."""
        lines = self.problems(
            certificate="none",
            client_ca="none",
            servers_ca="none",
            servers_certificate="none",
            servers_key="none",
        )
        self.assertEqual(
            [line.partition(":")[0] for line in lines],
            [
                "tls.certificate",
                "tls.servers_certificate",
                "tls.servers_key",
                "tls.client_ca",
                "tls.servers_ca",
            ],
        )

    def test_an_expired_certificate(self) -> None:
        """One that has expired is a line in the log when it is read, and once a minute while it is used."""
        self.authority.issue("play.example", ends=timedelta(hours=1)).write(self.folder, "shown")
        credentials = self.credentials()
        factory = credentials.factory(Factory())
        told = "The certificate of tls.certificate has expired: nobody should believe it."
        credentials.serverConnectionForTLS(factory)  # type: ignore[arg-type]  # it is not looked at
        self.assertEqual(self.lines, [])
        self.clock.advance(3700)
        for _ in range(3):
            credentials.serverConnectionForTLS(factory)  # type: ignore[arg-type]  # it is not looked at
        self.assertEqual(self.lines, [told])
        credentials.reload()
        self.assertEqual(self.lines, [told, told])


class ChangesTests(TlsTestCase):
    """Files that change while a proxy runs."""

    def serial(self, credentials: Credentials) -> int:
        """The certificate that the next client would be shown."""
        connection = credentials.serverConnectionForTLS(None)  # type: ignore[arg-type]  # it is not looked at
        assert isinstance(connection, Connection)
        certificate = connection.get_certificate()
        assert certificate is not None
        return certificate.get_serial_number()

    def test_noticed(self) -> None:
        """They are looked at once a minute at most, when somebody connects, and all are read when one has changed."""
        credentials = self.credentials()
        first = self.shown.serial
        self.assertEqual(self.serial(credentials), first)
        second = self.authority.issue("play.example").write(self.folder, "shown").serial
        self.clock.advance(LOOK_INTERVAL - 1)
        self.assertEqual(self.serial(credentials), first)
        self.clock.advance(1)
        self.assertEqual(self.serial(credentials), second)
        self.assertEqual(self.lines, ["The files of [tls] have changed, and were read again."])
        third = self.authority.issue("play.example").write(self.folder, "shown").serial
        self.assertEqual(self.serial(credentials), second)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.serial(credentials), third)

    def test_what_cannot_be_used(self) -> None:
        """What cannot be used is told once, and what was there is used on, until the rest of it has come."""
        credentials = self.credentials()
        first = self.shown.serial
        key = (self.folder / "shown.key").read_bytes()
        second = self.authority.issue("play.example").write(self.folder, "shown")
        new_key = (self.folder / "shown.key").read_bytes()
        (self.folder / "shown.key").write_bytes(key)
        for _ in range(3):
            self.clock.advance(LOOK_INTERVAL)
            self.assertEqual(self.serial(credentials), first)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("is not the key of the certificate", self.lines[0])
        (self.folder / "shown.key").write_bytes(new_key)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.serial(credentials), second.serial)

    def test_a_file_that_goes(self) -> None:
        """A file that is gone is a change like others."""
        credentials = self.credentials(client_ca="ca.pem")
        (self.folder / "ca.pem").unlink()
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.serial(credentials), self.shown.serial)
        self.assertRegex(self.lines[0], re.escape("ca.pem cannot be read"))

    def test_a_clock_set_back(self) -> None:
        """A clock that is set back does not put the next look off."""
        credentials = self.credentials()
        second = self.authority.issue("play.example").write(self.folder, "shown").serial
        self.clock.rightNow -= 100 * LOOK_INTERVAL
        self.assertEqual(self.serial(credentials), second)

    def test_all_or_nothing(self) -> None:
        """A reload that fails on one file changes nothing of the others."""
        credentials = self.credentials(servers=(SERVER,), servers_ca="ca.pem")
        self.authority.issue("play.example").write(self.folder, "shown")
        (self.folder / "ca.pem").write_text("")
        self.assertRaises(CredentialsError, credentials.reload)
        self.assertEqual(self.serial(credentials), self.shown.serial)


class FactoryTests(TlsTestCase):
    """The factory that listens."""

    def test_no_room(self) -> None:
        """Where the factory behind it makes nothing, it makes nothing."""

        class Full(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        factory = self.credentials().factory(Full())
        self.assertIsInstance(factory, TlsServerFactory)
        self.assertIsNone(factory.buildProtocol(None))
