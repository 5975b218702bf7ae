"""gameproxy.auth.tickets"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.auth import Ticket, issue_ticket
from gameproxy.auth.tickets import TicketChecker
from gameproxy.interfaces import Identity, UsedTicket

NOW = 1_800_000_000.0
SECRET = b"an HS256 secret of 64 bytes, so that HS512 would take it as well"
ED_PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
ED_PUBLIC = ED_PRIVATE.public_key()
EC_PRIVATE = generate_private_key(SECP256R1())
EC_PUBLIC_PEM = EC_PRIVATE.public_key().public_bytes(
    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
)
GOOD = {"sub": "zoe", "aud": "gameproxy", "jti": "j1", "exp": NOW + 60}


def token(changes: dict[str, object] | None = None, header: dict[str, object] | None = None) -> str:
    """An HS256 token written without PyJWT, which would refuse to write some of them. ``...`` takes a claim out."""
    claims = {key: one for key, one in {**GOOD, **(changes or {})}.items() if one is not ...}
    parts = [{"alg": "HS256", "kid": "web", **(header or {})}, claims]
    return sign([json.dumps(part).encode() for part in parts], SECRET)


def base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(parts: list[bytes], secret: bytes) -> str:
    signed = b".".join(base64url(part) for part in parts)
    return (signed + b"." + base64url(hmac.digest(secret, signed, hashlib.sha256))).decode()


class TicketTestCase(SynchronousTestCase):
    """A checker with a key of each algorithm, and a log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.checker = TicketChecker(
            {
                "web": ("HS256", SECRET),
                "launcher": ("EdDSA", ED_PUBLIC),
                "shop": ("ES256", EC_PUBLIC_PEM),
            },
            self.clock,
        )
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def accept(self, ticket: str) -> Identity:
        identity = self.successResultOf(self.checker.requestAvatarId(Ticket(ticket)))
        assert isinstance(identity, Identity)
        return identity

    def refuse(self, ticket: str, why: str | None = None) -> None:
        """The ticket is refused, saying why with nothing of the ticket in it; the log is for the session's end."""
        checked = self.checker.requestAvatarId(Ticket(ticket))
        said = str(self.failureResultOf(checked, UnauthorizedLogin).value)
        self.assertEqual(self.events, [])
        if why is not None:
            self.assertEqual(said, why)
        for part in ticket.split("."):
            self.assertFalse(len(part) > 5 and part in said)


class GoodTicketTests(TicketTestCase):
    """What is accepted."""

    def test_every_algorithm(self) -> None:
        """A ticket signed with any configured key by that key's algorithm vouches for its player."""
        for key_id, algorithm, key in (
            ("web", "HS256", SECRET),
            ("launcher", "EdDSA", ED_PRIVATE),
            ("shop", "ES256", EC_PRIVATE),
        ):
            ticket = issue_ticket(
                key_id, algorithm, key, player="zoe", jti="j1", now=NOW, game="tag"
            )
            expected = Identity("zoe", "ticket", "tag", UsedTicket("j1", NOW + 70))
            self.assertEqual(self.accept(ticket), expected)

    def test_audience_list(self) -> None:
        """``aud`` may be a list with this proxy in it."""
        self.assertEqual(self.accept(token({"aud": ["web", "gameproxy"]})).player, "zoe")

    def test_leeway(self) -> None:
        """Up to 10 s of difference between the clocks are allowed, for every claim about time."""
        for changes in (
            {"exp": NOW - 9.9},
            {"exp": NOW + 310},
            {"nbf": NOW + 10},
            {"iat": NOW + 10},
        ):
            with self.subTest(str(changes)):
                self.accept(token(changes))

    def test_remembered_until_it_cannot_come_again(self) -> None:
        """``jti`` is remembered for as long as the ticket would be accepted."""
        ticket = token({"exp": NOW})
        used = self.accept(ticket).ticket
        assert used is not None
        self.clock.advance(used.expires_at - NOW - 0.001)
        self.accept(ticket)
        self.clock.advance(0.001)
        self.refuse(ticket, "it has expired")

    def test_time_is_the_injected_clock(self) -> None:
        """Nothing depends on the system's clock: at another time other tickets are good."""
        self.clock.rightNow = 1000.0
        self.accept(token({"exp": 1060, "nbf": 1000, "iat": 1000}))
        self.refuse(token(), "its exp is too far ahead")

    def test_longest_jti(self) -> None:
        """``jti`` may have 256 characters."""
        self.accept(token({"jti": "j" * 256}))

    def test_repr(self) -> None:
        """A token is not shown in the repr of its credentials."""
        self.assertNotIn("secret", repr(Ticket("secret")))


class BadTicketTests(TicketTestCase):
    """What is refused."""

    def test_time(self) -> None:
        """Expired, too long-lived, not yet good, issued in the future."""
        self.refuse(token({"exp": NOW - 10}), "it has expired")
        self.refuse(token({"exp": NOW + 310.5}), "its exp is too far ahead")
        self.refuse(token({"nbf": NOW + 10.5}), "its nbf is in the future")
        self.refuse(token({"iat": NOW + 10.5}), "its iat is in the future")

    def test_lifetime_is_configured(self) -> None:
        """``exp`` may be as far ahead as the configuration says."""
        self.checker = TicketChecker({"web": ("HS256", SECRET)}, self.clock, lifetime=20.0)
        self.accept(token({"exp": NOW + 30}))
        self.refuse(token({"exp": NOW + 30.5}), "its exp is too far ahead")

    def test_missing_claims(self) -> None:
        """``sub``, ``exp``, ``aud`` and ``jti`` have to be there, and not be null."""
        for name in ("sub", "exp", "aud", "jti"):
            for nothing in (..., None):
                with self.subTest(f"{name}: {nothing}"):
                    self.refuse(token({name: nothing}))

    def test_wrong_types(self) -> None:
        """A claim of a wrong type is refused, an optional one too."""
        for changes in (
            {"sub": 7},
            {"sub": ["zoe"]},
            {"sub": ""},
            {"exp": str(NOW + 60)},
            {"exp": True},
            {"exp": [NOW + 60]},
            {"nbf": "now"},
            {"nbf": None},
            {"nbf": False},
            {"iat": {}},
            {"iat": True},
            {"jti": 1},
            {"jti": ""},
            {"jti": "j" * 257},
            {"jti": "\ud800"},
            {"game": None},
            {"game": ["tag"]},
            {"game": ""},
            {"aud": 1},
            {"aud": []},
            {"aud": ["gameproxy", 1]},
            {"aud": {"gameproxy": 1}},
        ):
            with self.subTest(str(changes)):
                self.refuse(token(changes))

    def test_numbers_beyond_all_bounds(self) -> None:
        """NaN, infinity and numbers too large for a float are no times."""
        for name in ("exp", "nbf", "iat"):
            for number in (math.nan, math.inf, -math.inf, 10**400, -(10**400)):
                with self.subTest(f"{name}: {str(number)[:5]}"):
                    self.refuse(token({name: number}), f"its {name} is not finite")

    def test_other_audience(self) -> None:
        """A ticket for somebody else is not good here."""
        for audience in ("other", "Gameproxy", "gameproxy2", ["other"], ""):
            self.refuse(token({"aud": audience}))

    def test_forged(self) -> None:
        """Claims changed after the signature, a wrong secret, no signature at all."""
        header, _, signature = token().split(".")
        claims = base64url(json.dumps({**GOOD, "sub": "admin"}).encode()).decode()
        self.refuse(f"{header}.{claims}.{signature}", "InvalidSignatureError")
        self.refuse(f"{header}.{claims}.")
        parts = [json.dumps({"alg": "HS256", "kid": "web"}).encode(), json.dumps(GOOD).encode()]
        self.refuse(sign(parts, b"another secret of 32 bytes or so"), "InvalidSignatureError")

    def test_no_algorithm(self) -> None:
        """``alg`` none in any spelling, missing or of a wrong type is refused."""
        for algorithm in ("none", "None", "NONE", "", None, ["HS256"], {"HS256": 1}, 5):
            with self.subTest(str(algorithm)):
                self.refuse(token(header={"alg": algorithm}))
        unsigned = jwt.encode(GOOD, None, algorithm="none", headers={"kid": "web"})
        self.refuse(unsigned, "InvalidAlgorithmError")
        self.refuse(sign([b'{"kid":"web"}', json.dumps(GOOD).encode()], SECRET))

    def test_other_algorithm_than_its_key(self) -> None:
        """A key is good for its one algorithm alone, even when the signature is right."""
        self.refuse(jwt.encode(GOOD, SECRET, "HS512", {"kid": "web"}), "InvalidAlgorithmError")
        for key_id in ("launcher", "shop"):
            self.refuse(jwt.encode(GOOD, SECRET, "HS256", {"kid": key_id}), "InvalidAlgorithmError")
        self.refuse(jwt.encode(GOOD, ED_PRIVATE, "EdDSA", {"kid": "shop"}), "InvalidAlgorithmError")

    def test_public_key_as_shared_secret(self) -> None:
        """Who knows a public key cannot sign with it as if it were an HS256 secret."""
        raw = ED_PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw)
        pem = ED_PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key_id, secret in (("launcher", raw), ("launcher", pem), ("shop", EC_PUBLIC_PEM)):
            header = json.dumps({"alg": "HS256", "kid": key_id}).encode()
            self.refuse(sign([header, json.dumps(GOOD).encode()], secret), "InvalidAlgorithmError")

    def test_key_id(self) -> None:
        """``kid`` must name a configured key."""
        parts = [b'{"alg":"HS256"}', json.dumps(GOOD).encode()]
        self.refuse(sign(parts, SECRET), "its kid names no configured key")
        self.refuse(token(header={"kid": "other"}), "its kid names no configured key")
        for key_id in (None, 1, ["web"], {}):
            self.refuse(token(header={"kid": key_id}))

    def test_another_key(self) -> None:
        """A ticket that is signed with one key and names another is refused."""
        other = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
        self.refuse(jwt.encode(GOOD, other, "EdDSA", {"kid": "launcher"}), "InvalidSignatureError")

    def test_critical_extensions(self) -> None:
        """A header that demands what is not understood is refused (RFC 7515, section 4.1.11)."""
        self.refuse(token(header={"crit": ["other"], "other": 1}))
        self.refuse(token(header={"crit": ["b64"], "b64": False}))

    def test_no_jwt(self) -> None:
        """What is no JWT is refused like any other."""
        nested = b"[" * 5000
        for ticket in (
            "",
            "a",
            "a.b",
            "a.b.c",
            "....",
            "é.é.é",
            "\ud800.a.b",
            sign([b'{"alg":"HS256","kid":"web"}', b"[]"], SECRET),
            sign([b'{"alg":"HS256","kid":"web"}', b"\xff"], SECRET),
            sign([b'{"alg":"HS256","kid":"web"}', nested], SECRET),
            sign([b'{"alg":"HS256","kid":"web"}', b'{"exp":' + b"9" * 5000 + b"}"], SECRET),
            sign([nested, json.dumps(GOOD).encode()], SECRET),
            sign([b"[]", json.dumps(GOOD).encode()], SECRET),
        ):
            with self.subTest(ticket[:20].encode("ascii", "replace")):
                self.refuse(ticket)

    @given(
        st.dictionaries(
            st.sampled_from(["sub", "aud", "jti", "exp", "nbf", "iat", "game"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=3,
            ),
        ),
        st.dictionaries(
            st.sampled_from(["alg", "kid", "typ", "crit", "b64"]),
            st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
        ),
    )
    def test_any_claims(self, claims: dict[str, object], header: dict[str, object]) -> None:
        """Whatever is signed is refused like any other, or gives an identity of sound types."""
        answer = self.checker.requestAvatarId(Ticket(token(claims, header)))
        result: list[object] = []
        answer.addBoth(result.append)
        (found,) = result
        if isinstance(found, Identity):
            assert found.ticket is not None
            self.assertIs(type(found.player), str)
            self.assertIs(type(found.ticket.jti), str)
            self.assertTrue(NOW < found.ticket.expires_at <= NOW + 320)
            self.assertIsInstance(found.game, str | None)
        else:
            self.assertTrue(found.check(UnauthorizedLogin))


class KeyTests(SynchronousTestCase):
    """The keys are looked at when the proxy starts."""

    def test_wrong_keys(self) -> None:
        """A key that is none of its algorithm, or another algorithm, is an error that names the key's id only."""
        for algorithm, key in (
            ("HS256", EC_PUBLIC_PEM),
            ("EdDSA", EC_PUBLIC_PEM),
            ("EdDSA", SECRET),
            ("ES256", ED_PUBLIC),
            ("ES256", b"\xff"),
            ("none", b""),
            ("HS512", SECRET),
        ):
            with self.subTest(f"{algorithm} {key!r}"):
                error = self.assertRaises(
                    ValueError, TicketChecker, {"web": (algorithm, key)}, Clock()
                )
                self.assertIn("'web'", str(error))
                self.assertNotIn("secret", str(error))

    def test_issuing_with_a_wrong_key(self) -> None:
        """No ticket is made with a key that is not of the algorithm."""
        self.assertRaises(
            jwt.InvalidKeyError,
            issue_ticket,
            "web",
            "EdDSA",
            SECRET,
            player="zoe",
            jti="1",
            now=NOW,
        )
