"""Bad tickets: each is auth_failed, and the client is not told what was wrong with it.

The tickets are made here by hand (RFC 7515, RFC 7519), so that no library keeps a test from making a bad one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, gatherResults

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    WELCOME,
    Stream,
    auth,
    echo,
)

WEB_KEY = b"0123456789abcdef0123456789abcdef"
ED_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EC_KEY = generate_private_key(SECP256R1())
ED_PEM = ED_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
EC_PEM = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

KEYS = """
    ticket_keys = [
        { id = "web", algorithm = "HS256", file = "web.key" },
        { id = "ed", algorithm = "EdDSA", file = "ed.pem" },
        { id = "ec", algorithm = "ES256", file = "ec.pem" },
    ]
"""


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign_hs256(text: bytes, key: bytes = WEB_KEY) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(key, text, hashlib.sha256)


def sign_es256(text: bytes) -> bytes:
    """ECDSA with P-256, as 64 bytes."""
    r, s = decode_dss_signature(EC_KEY.sign(text, ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def ticket(
    header: Mapping[str, object] | None = None,
    sign: Callable[[bytes], bytes] = sign_hs256,
    **claims: object,
) -> str:
    """A ticket: good for a minute, but for what is given; ``None`` takes a claim or a field of the header away."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "web", **(header or {})}
    claims = {"sub": "ann", "aud": "gameproxy", "jti": "one", "exp": time() + 60, **claims}
    parts = [
        _base64(json.dumps({k: v for k, v in part.items() if v is not None}).encode())
        for part in (header, claims)
    ]
    text = b".".join(parts)
    return (text + b"." + _base64(sign(text))).decode()


def other_last_character(token: str) -> str:
    """The same token with another signature."""
    return token[:-3] + ("AAA" if not token.endswith("AAA") else "BBB")


def rig(folder: Path, auth: str = "", servers: tuple[str, ...] = ()) -> Rig:
    """A proxy that takes tickets of three keys, and no guests but the canary."""
    (folder / "web.key").write_bytes(WEB_KEY + b"\n")
    (folder / "ed.pem").write_bytes(ED_PEM)
    (folder / "ec.pem").write_bytes(EC_PEM)
    for file in ("web.key", "ed.pem", "ec.pem"):
        (folder / file).chmod(0o600)
    return Rig(folder, auth=KEYS + auth, servers=[(f"{game}-1", game, echo) for game in servers])


def ask(token: object, **fields: object) -> bytes:
    """The body of an AUTH with this ticket."""
    return auth(**{"mechanism": "ticket", "name": None, "ticket": token, "game": "echo", **fields})


GOOD: list[tuple[str, Callable[[], str]]] = [
    ("HS256", ticket),
    ("EdDSA", lambda: ticket({"alg": "EdDSA", "kid": "ed"}, ED_KEY.sign)),
    ("ES256", lambda: ticket({"alg": "ES256", "kid": "ec"}, sign_es256)),
    ("aud is a list", lambda: ticket(aud=["other", "gameproxy"])),
    ("exp just past", lambda: ticket(exp=time() - 5)),
    ("exp just not too far", lambda: ticket(exp=time() + 305)),
    ("nbf just ahead", lambda: ticket(nbf=time() + 5)),
    ("iat just ahead", lambda: ticket(iat=time() + 5)),
    ("exp is an integer", lambda: ticket(exp=int(time()) + 60)),
    ("its game", lambda: ticket(game="echo")),
    ("no typ", lambda: ticket({"typ": None})),
]

BAD: list[tuple[str, Callable[[], str]]] = [
    ("empty", lambda: ""),
    ("no token", lambda: "hello"),
    ("two parts", lambda: ticket().rpartition(".")[0]),
    ("no signature", lambda: ticket().rpartition(".")[0] + "."),
    ("four parts", lambda: ticket() + ".x"),
    ("not base64", lambda: "\0" + ticket()),
    ("not ASCII", lambda: ticket()[:-1] + "\u0131"),
    ("a surrogate", lambda: ticket()[:-1] + "\ud800"),
    ("expired", lambda: ticket(exp=time() - 11)),
    ("expired long ago", lambda: ticket(exp=1)),
    ("negative exp", lambda: ticket(exp=-1)),
    ("too long-lived", lambda: ticket(exp=time() + 320)),
    ("for ever", lambda: ticket(exp=10**15)),
    ("enormous exp", lambda: ticket(exp=10**400)),
    ("exp is text", lambda: ticket(exp=str(time() + 60))),
    ("exp is true", lambda: ticket(exp=True)),
    ("exp is infinite", lambda: ticket(exp=float("inf"))),
    ("exp is no number", lambda: ticket(exp=float("nan"))),
    ("no exp", lambda: ticket(exp=None)),
    ("no sub", lambda: ticket(sub=None)),
    ("no jti", lambda: ticket(jti=None)),
    ("no aud", lambda: ticket(aud=None)),
    ("sub is a number", lambda: ticket(sub=5)),
    ("jti is a number", lambda: ticket(jti=5)),
    ("jti is empty", lambda: ticket(jti="")),
    ("jti is a surrogate", lambda: ticket(jti="\ud800")),
    ("another aud", lambda: ticket(aud="gameproxy2")),
    ("other auds", lambda: ticket(aud=["a", "b"])),
    ("aud in another case", lambda: ticket(aud="GameProxy")),
    ("not yet", lambda: ticket(nbf=time() + 30)),
    ("nbf is text", lambda: ticket(nbf="soon")),
    ("made tomorrow", lambda: ticket(iat=time() + 30)),
    ("game is a number", lambda: ticket(game=5)),
    ("forged", lambda: ticket(sign=lambda text: sign_hs256(text, b"x" * 32))),
    ("forged with nothing", lambda: ticket(sign=lambda text: sign_hs256(text, b""))),
    ("another signature", lambda: other_last_character(ticket())),
    ("half a signature", lambda: ticket(sign=lambda text: sign_hs256(text)[:16])),
    ("alg none", lambda: ticket({"alg": "none"}, lambda text: b"")),
    ("alg None", lambda: ticket({"alg": "None"}, lambda text: b"")),
    ("alg none, signed", lambda: ticket({"alg": "none"})),
    ("alg missing", lambda: ticket({"alg": None})),
    ("alg is a list", lambda: ticket({"alg": ["HS256"]})),
    ("alg of nobody", lambda: ticket({"alg": "HS257"})),
    (
        "HS512 with the key of HS256",
        lambda: ticket({"alg": "HS512"}, lambda text: hmac.digest(WEB_KEY, text, hashlib.sha512)),
    ),
    (
        "HS256 with the public key of EdDSA",
        lambda: ticket({"kid": "ed"}, lambda text: sign_hs256(text, ED_PEM)),
    ),
    (
        "HS256 with the public key of ES256",
        lambda: ticket({"kid": "ec"}, lambda text: sign_hs256(text, EC_PEM)),
    ),
    ("EdDSA under the kid of HS256", lambda: ticket({"alg": "EdDSA"}, ED_KEY.sign)),
    ("ES256 under the kid of EdDSA", lambda: ticket({"alg": "ES256", "kid": "ed"}, sign_es256)),
    ("all zeros", lambda: ticket({"alg": "ES256", "kid": "ec"}, lambda text: bytes(64))),
    ("no kid", lambda: ticket({"kid": None})),
    ("another kid", lambda: ticket({"kid": "WEB"})),
    ("kid is a number", lambda: ticket({"kid": 5})),
    ("kid is a list", lambda: ticket({"kid": ["web"]})),
    ("kid is a path", lambda: ticket({"kid": "../../../dev/null"}, lambda t: sign_hs256(t, b""))),
    ("crit", lambda: ticket({"crit": ["unknown"], "unknown": 1})),
    ("b64 false", lambda: ticket({"crit": ["b64"], "b64": False})),
    ("empty name", lambda: ticket(sub="")),
    ("long name", lambda: ticket(sub="x" * 65)),
    ("bidi name", lambda: ticket(sub="ann\u202e")),
    ("control in name", lambda: ticket(sub="a\x1b[2J")),
    ("surrogate in name", lambda: ticket(sub="\ud800")),
    ("a guest", lambda: ticket(sub="guest:ann")),
    ("claims are a list", lambda: _with_claims(b"[]")),
    ("claims are no JSON", lambda: _with_claims(b"sub=ann")),
    ("claims nest", lambda: _with_claims(b'{"a":' * 300 + b"1" + b"}" * 300)),
]


def _with_claims(claims: bytes) -> str:
    header = _base64(b'{"alg":"HS256","kid":"web"}')
    text = header + b"." + _base64(claims)
    return (text + b"." + _base64(sign_hs256(text))).decode()


@pytest.mark.parametrize("make", [make for _, make in GOOD], ids=[name for name, _ in GOOD])
@pytest_twisted.ensureDeferred
async def test_good_ticket(tmp_path: Path, make: Callable[[], str]) -> None:
    """What is right is let in: else the other tests would show nothing."""
    async with rig(tmp_path) as running:
        client = await running.connect()
        client.send(ask(make()))
        assert (await client.message(WELCOME))["player"] == "ann"
        client.close()
        await running.over("client_lost")


@pytest.mark.parametrize("make", [make for _, make in BAD], ids=[name for name, _ in BAD])
@pytest_twisted.ensureDeferred
async def test_bad_ticket(tmp_path: Path, make: Callable[[], str]) -> None:
    """What is not right is auth_failed, always in the same words."""
    async with rig(tmp_path) as running, running.canary():
        client = await running.connect()
        client.send(ask(make()))
        error = await running.refused(client, "auth_failed")
        assert error["message"] == "The credentials were not accepted. Sign in again."


@pytest_twisted.ensureDeferred
async def test_ticket_again(tmp_path: Path) -> None:
    """A ticket is good once: while its session relays, and after that."""
    token = ticket()
    async with rig(tmp_path) as running, running.canary(lines=3):
        first = await running.connect()
        first.send(ask(token))
        await first.message(WELCOME)
        second = await running.connect()
        second.send(ask(token))
        await running.refused(second, "auth_failed")
        await first.echo(b"\x10still here")
        first.close()
        await running.over("client_lost")
        third = await running.connect()
        third.send(ask(token))
        await running.refused(third, "auth_failed")


@pytest_twisted.ensureDeferred
async def test_ticket_after_a_restart(tmp_path: Path) -> None:
    """A ticket that was used is remembered when the proxy starts again."""
    token = ticket()
    async with rig(tmp_path) as running:
        client = await running.connect()
        client.send(ask(token))
        await client.message(WELCOME)
        client.close()
        await running.over("client_lost")
    async with rig(tmp_path) as running:
        client = await running.connect()
        client.send(ask(token))
        await running.refused(client, "auth_failed")


@pytest.mark.parametrize("duplicates", ["replace", "refuse"])
@pytest_twisted.ensureDeferred
async def test_ticket_at_the_same_time(tmp_path: Path, duplicates: str) -> None:
    """Of five that use a ticket at the same time one gets in, and is not disturbed by the others."""
    token = ticket()

    async def come(client: Stream) -> int:
        client.send(ask(token))
        return (await client.body())[0]

    async with (
        rig(tmp_path, f'duplicates = "{duplicates}"') as running,
        running.canary(lines=5),
    ):
        clients = [await running.connect() for _ in range(5)]
        answers = await gatherResults([Deferred.fromCoroutine(come(one)) for one in clients])
        assert answers.count(WELCOME) == 1
        for _ in range(4):
            await running.over("auth_failed")
        winner = clients[answers.index(WELCOME)]
        await winner.echo(b"\x10in")
        winner.close()
        await running.over("client_lost")


@pytest.mark.parametrize(("of_ticket", "of_auth"), [("echo", "chess"), ("chess", "echo")])
@pytest_twisted.ensureDeferred
async def test_game_against_ticket(tmp_path: Path, of_ticket: str, of_auth: str) -> None:
    """AUTH that names another game than its ticket is auth_failed."""
    async with rig(tmp_path, servers=("chess",)) as running, running.canary():
        client = await running.connect()
        client.send(ask(ticket(game=of_ticket), game=of_auth))
        await running.refused(client, "auth_failed")


@pytest_twisted.ensureDeferred
async def test_empty_game_against_ticket(tmp_path: Path) -> None:
    """An empty game in AUTH is not the ticket's either."""
    async with rig(tmp_path) as running, running.canary():
        client = await running.connect()
        client.send(ask(ticket(game="echo"), game=""))
        await running.refused(client, "auth_failed")


@pytest_twisted.ensureDeferred
async def test_game_of_the_ticket(tmp_path: Path) -> None:
    """The ticket's game counts where AUTH names none; one that is not here is unknown_game."""
    async with rig(tmp_path, servers=("chess",)) as running, running.canary(lines=2):
        client = await running.connect()
        client.send(ask(ticket(game="chess"), game=None))
        assert (await client.message(WELCOME))["game"] == "chess"
        client.close()
        await running.over("client_lost")
        client = await running.connect()
        client.send(ask(ticket(game="go", jti="two"), game=None))
        await running.refused(client, "unknown_game")


@pytest_twisted.ensureDeferred
async def test_player_twice(tmp_path: Path) -> None:
    """A player who comes again replaces the first session, which is told so."""
    async with rig(tmp_path) as running, running.canary(lines=2):
        first = await running.connect()
        first.send(ask(ticket()))
        await first.message(WELCOME)
        second = await running.connect()
        second.send(ask(ticket(jti="two")))
        await second.message(WELCOME)
        assert await running.closed(first, "replaced") == []
        await running.over("replaced")
        await second.echo(b"\x10mine")
        second.close()
        await running.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_player_twice_refused(tmp_path: Path) -> None:
    """With duplicates = "refuse" the second one is turned away, and the first goes on."""
    async with rig(tmp_path, 'duplicates = "refuse"') as running, running.canary(lines=2):
        first = await running.connect()
        first.send(ask(ticket()))
        await first.message(WELCOME)
        second = await running.connect()
        second.send(ask(ticket(jti="two")))
        await running.refused(second, "already_connected")
        await first.echo(b"\x10mine")
        first.close()
        await running.over("client_lost")
