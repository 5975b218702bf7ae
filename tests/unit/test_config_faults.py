"""What is refused in a configuration: every fault is told, with its place."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import ConfigError, Problem, parse
from gameproxy.limit_counts import LIMITS

GAME = '[[games]]\nname = "a"\ncommand = ["a"]\ncapacity = 1\nmax_servers = 1\n'
SERVER = '[[servers]]\nid = "s"\ngame = "a"\nhost = "127.0.0.1"\nport = 1\ncapacity = 1\n'


def problems_of(text: str) -> list[Problem]:
    """All that is wrong with this configuration."""
    try:
        parse(text, "/etc")
    except ConfigError as error:
        return error.problems
    return []


def places_of(text: str) -> list[str]:
    """Where something is wrong with this configuration."""
    return [place for place, _ in problems_of(text)]


class Faults(SynchronousTestCase):
    """Every fault has its place, and all are told at once."""

    def test_all_at_once(self) -> None:
        """One reading tells of all, in the file's terms."""
        text = """
            top = 1
            folder = "/"
            [proxy]
            listen = [1, "tcp:70000", "tcp:7777"]
            "odd key" = 1
            [auth]
            ticket_keys = [{ id = "k" }, { id = "k", algorithm = "none", file = "" }]
            [limits.frames_per_minute]
            [[games]]
            name = "a"
            command = "a"
            capacity = 1
            max_servers = 1
            [[games]]
            name = "a"
            command = ["a"]
            capacity = 0
            max_servers = 1
            [[servers]]
            id = "s"
            [[servers]]
            id = "s"
            game = "a"
            host = "h"
            port = 1
            capacity = 1
        """
        same = "is the same as that of "
        self.assertEqual(
            sorted(problems_of(text)),
            sorted(
                [
                    ("folder", "unknown key"),
                    ("top", "unknown key"),
                    ("proxy.listen[0]", "must be a valid string"),
                    ("proxy.listen[1]", "must have a port from 0 to 65535"),
                    ('proxy."odd key"', "unknown key"),
                    ("auth.ticket_keys[0].algorithm", "is missing"),
                    ("auth.ticket_keys[0].file", "is missing"),
                    ("auth.ticket_keys[1].algorithm", "must be 'HS256', 'EdDSA' or 'ES256'"),
                    ("auth.ticket_keys[1].file", "must have at least 1 character"),
                    ("auth.ticket_keys[1].id", same + "auth.ticket_keys[0]"),
                    ("limits.frames_per_minute", "unknown key"),
                    ("games[0].command", "must be an array"),
                    ("games[1].capacity", "must be greater than or equal to 1"),
                    ("games[1].name", same + "games[0]"),
                    ("servers[0].game", "is missing"),
                    ("servers[0].host", "is missing"),
                    ("servers[0].port", "is missing"),
                    ("servers[0].capacity", "is missing"),
                    ("servers[1].id", same + "servers[0]"),
                ]
            ),
        )

    def test_as_text(self) -> None:
        """The text of the error is a line for each; a place that is the whole file leaves no mark."""
        error = ConfigError([("a.b", "is wrong"), ("", "is bad")])
        self.assertEqual(str(error), "a.b: is wrong\nis bad")

    def test_every_duplicate(self) -> None:
        """Each duplicate is told once, and of which it is one, in a file without other faults too."""
        three = GAME + GAME + GAME
        message = "is the same as that of games[0]"
        self.assertEqual(
            problems_of(three), [("games[1].name", message), ("games[2].name", message)]
        )

    def test_wrong_shapes(self) -> None:
        """A section, list or entry of another shape is told where it stands."""
        for text, places in (
            ("proxy = 1", ["proxy"]),
            ("auth = 1\ngames = 2\nservers = [3]", ["auth", "games", "servers[0]"]),
            ("[auth]\nticket_keys = 1", ["auth.ticket_keys"]),
            ("dialect = 1", ["dialect"]),
            ("[games]", ["games"]),
        ):
            self.assertEqual(places_of(text), places, text)

    def test_types_are_strict(self) -> None:
        """No value is turned into another type, but an integer does for seconds."""
        for section, value in (
            ("[proxy]\nmax_sessions", "true"),
            ("[proxy]\nmax_sessions", "1.0"),
            ("[proxy]\nmax_sessions", '"1"'),
            ("[proxy]\ndrain_grace", "true"),
            ("[proxy]\ndrain_grace", '"1"'),
            ("[auth]\nguests", "1"),
            ("[auth]\nguests", '"true"'),
            ("[framing]\nlength_bytes", "true"),
            ("[framing]\nlength_bytes", "4.0"),
            ("[framing]\nmax_frame", "true"),
        ):
            key = section.replace("[", "").replace("]\n", ".")
            self.assertEqual(places_of(f"{section} = {value}"), [key], value)
        self.assertEqual(parse("[proxy]\ndrain_grace = 5", "/").proxy.drain_grace, 5.0)

    def test_numbers(self) -> None:
        """Numbers that cannot be are refused: of sections."""
        for section, keys in {
            "proxy": ("drain_grace", "stall_timeout", "sockmap_after"),
            "auth": ("timeout", "ticket_lifetime"),
            "selection": ("queue_timeout", "connect_timeout", "handshake_timeout", "max_load"),
        }.items():
            for key in keys:
                for value in ("0", "-1.0", "inf", "-inf", "nan", "1e300"):
                    text = f"[{section}]\n{key} = {value}\n"
                    self.assertEqual(places_of(text), [f"{section}.{key}"], value)
        for place in ("proxy.max_sessions", "proxy.max_unauthenticated", "selection.attempts"):
            section, key = place.split(".")
            for value in (0, -1, 1_000_001, 2**63):
                self.assertEqual(places_of(f"[{section}]\n{key} = {value}\n"), [place], value)
        self.assertEqual(places_of("[selection]\nqueue_size = -1"), ["selection.queue_size"])
        self.assertEqual(places_of("[selection]\nmax_load = 1.01"), ["selection.max_load"])
        self.assertEqual(problems_of("[selection]\nqueue_size = 0\nmax_load = 1"), [])

    def test_numbers_of_games_and_servers(self) -> None:
        """Numbers that cannot be are refused: of games and servers."""
        for key in ("start_timeout", "stop_when_idle", "stop_grace", "start_attempts"):
            self.assertEqual(places_of(f"{GAME}{key} = 0"), [f"games[0].{key}"])
        self.assertEqual(places_of(GAME + "min_ready = -1"), ["games[0].min_ready"])
        self.assertEqual(
            problems_of(GAME + "min_ready = 2"),
            [("games[0].max_servers", "must be min_ready or more")],
        )
        self.assertEqual(problems_of(GAME + "min_ready = 1"), [])
        for key in ("capacity", "max_servers"):
            text = GAME.replace(f"{key} = 1", f"{key} = 0")
            self.assertEqual(places_of(text), [f"games[0].{key}"])
        for port in (0, 65536):
            text = SERVER.replace("port = 1", f"port = {port}")
            self.assertEqual(places_of(text), ["servers[0].port"])

    def test_names(self) -> None:
        """Names that could be no part of a file name, hide on a screen or are empty are refused."""
        for name in ("", "a/b", ".a", " a", "a ", "a\\u001b", "a\\u202e", "a\\n", "a" * 65):
            text = GAME.replace('"a"', f'"{name}"', 1) + SERVER.replace('"s"', f'"{name}"')
            self.assertEqual(places_of(text), ["games[0].name", "servers[0].id"], name)
        self.assertEqual(problems_of(GAME.replace('"a"', '"Über 2.1"', 1)), [])

    def test_hosts(self) -> None:
        """A host is an address or a name, without port, brackets or spaces."""
        for host in ("", "a b", "h:1", "[::1]", "a/b", "a\\u0000"):
            text = SERVER.replace("127.0.0.1", host)
            self.assertEqual(places_of(text), ["servers[0].host"], host)
        for host in ("::1", "10.0.0.1", "games.example"):
            self.assertEqual(problems_of(SERVER.replace("127.0.0.1", host)), [], host)

    def test_commands(self) -> None:
        """A command names a program; its arguments may be empty, but hold no NUL."""
        for command in ("[]", '[""]', '["", "a"]', '["a\\u0000"]', "[1]", '"a"'):
            text = GAME.replace('["a"]', command)
            (place,) = places_of(text)
            self.assertTrue(place.startswith("games[0].command"), place)
        self.assertEqual(problems_of(GAME.replace('["a"]', '["a", ""]')), [])

    def test_listen(self) -> None:
        """A proxy listens somewhere, on ports that exist, and believes no PROXY header there."""
        for listen, place in (
            ("[]", "proxy.listen"),
            ('["tcp:65536"]', "proxy.listen[0]"),
            ('["tcp:1", "ssl:port=-1:privateKey=a"]', "proxy.listen[1]"),
            ('["haproxy:tcp:7777"]', "proxy.listen[0]"),
        ):
            self.assertEqual(places_of(f"[proxy]\nlisten = {listen}"), [place])
        good = '[proxy]\nlisten = ["tcp:0", "tcp6:65535:interface=\\\\:\\\\:1", "unix:/tmp/70000"]'
        self.assertEqual(problems_of(good), [])


class Doors(SynchronousTestCase):
    """``[tls]``, ``[proxy_protocol]``, and game servers that are dialled by TLS."""

    def test_tls(self) -> None:
        """A certificate has a key and a key a certificate, and who listens has both."""
        files = 'certificate = "a"\nkey = "b"\n'
        for text, places in (
            (files, []),
            (files + 'listen = ["tcp:1"]\nclient_ca = "c"\nminimum = "1.3"', []),
            ('servers_certificate = "a"\nservers_key = "b"\nservers_ca = "c"', []),
            ('certificate = "a"', ["tls.key"]),
            ('key = "a"', ["tls.certificate"]),
            ('servers_certificate = "a"', ["tls.servers_key"]),
            ('servers_key = "a"', ["tls.servers_certificate"]),
            ('certificate = "a"\nservers_key = "a"', ["tls.key", "tls.servers_certificate"]),
            ('listen = ["tcp:1"]', ["tls.certificate"]),
            ('client_ca = "a"', ["tls.client_ca"]),
            ('minimum = "1.1"', ["tls.minimum"]),
            ("minimum = 1.2", ["tls.minimum"]),
            (files + 'listen = ["ssl:1"]', ["tls.listen[0]"]),
            (files + 'listen = ["tcp:1", "haproxy:tcp:1"]', ["tls.listen[1]"]),
            (files + 'listen = ["tcp:70000"]', ["tls.listen[0]"]),
            ("verify = false", ["tls.verify"]),
        ):
            self.assertEqual(places_of(f"[tls]\n{text}"), places, text)

    def test_proxy_protocol(self) -> None:
        """Who may send headers is named, by networks that mean one thing."""
        listen = 'listen = ["tcp:1"]\n'
        trusted = '["10.0.0.0/8", "192.0.2.1", "::1", "2001:db8::/32"]'
        for text, places in (
            (f"trusted = {trusted}", []),
            (listen + f"trusted = {trusted}\ntimeout = 1", []),
            (listen, ["proxy_protocol.trusted"]),
            (listen + "trusted = []", ["proxy_protocol.trusted"]),
            ('trusted = ["10.0.0.1/8"]', ["proxy_protocol.trusted[0]"]),
            ('trusted = ["::1", "localhost"]', ["proxy_protocol.trusted[1]"]),
            ('trusted = ["::ffff:10.0.0.0/104"]', ["proxy_protocol.trusted[0]"]),
            ('trusted = [""]', ["proxy_protocol.trusted[0]"]),
            ("trusted = [1]", ["proxy_protocol.trusted[0]"]),
            ("timeout = 0", ["proxy_protocol.timeout"]),
            ("tls = true", ["proxy_protocol.tls"]),
            (listen + 'trusted = ["::1"]\ntls = 1', ["proxy_protocol.tls"]),
            ('trusted = ["::1"]\nlisten = ["ssl:1"]', ["proxy_protocol.listen[0]"]),
            ('trusted = ["::1"]\nlisten = ["haproxy:tcp:1"]', ["proxy_protocol.listen[0]"]),
        ):
            self.assertEqual(places_of(f"[proxy_protocol]\n{text}"), places, text)

    def test_somewhere(self) -> None:
        """A port of any section is enough."""
        none = "[proxy]\nlisten = []\n"
        tls = '[tls]\nlisten = ["tcp:1"]\ncertificate = "a"\nkey = "b"\n'
        proxied = '[proxy_protocol]\nlisten = ["tcp:1"]\ntrusted = ["::1"]\n'
        self.assertEqual(places_of(none), ["proxy.listen"])
        for more in (tls, proxied, tls + proxied + "tls = true"):
            self.assertEqual(problems_of(none + more), [])

    def test_servers(self) -> None:
        """A name is for TLS, and can be one of a certificate."""
        for text, places in (
            ("tls = true", []),
            ('tls = true\ntls_name = "game.example"', []),
            ('tls = true\ntls_name = "2001:db8::1"', []),
            ('tls_name = "game.example"', ["servers[0].tls_name"]),
            ('tls = false\ntls_name = "game.example"', ["servers[0].tls_name"]),
            ('tls = true\ntls_name = "a..b"', ["servers[0].tls_name"]),
            ('tls = true\ntls_name = "*.example"', ["servers[0].tls_name"]),
            (f'tls = true\ntls_name = "{"a" * 64}.b"', ["servers[0].tls_name"]),
        ):
            self.assertEqual(places_of(SERVER + text), places, text)
        server = SERVER.replace("127.0.0.1", f"{'a' * 64}.b")
        self.assertEqual(places_of(server), [])
        self.assertEqual(places_of(server + "tls = true"), ["servers[0].host"])


class Limits(SynchronousTestCase):
    """[limits]"""

    def test_rates(self) -> None:
        """A limit that is not off needs a rate; one that is off may have one."""
        for name in LIMITS:
            for mode in ("dry_run", "enforce"):
                ((place, message),) = problems_of(f'[limits.{name}]\nmode = "{mode}"')
                self.assertEqual(place, f"limits.{name}.rate")
                self.assertEqual(message, f'must be there with mode = "{mode}"')
                self.assertEqual(problems_of(f'[limits.{name}]\nmode = "{mode}"\nrate = 1'), [])
            self.assertEqual(problems_of(f'[limits.{name}]\nmode = "off"\nrate = 1'), [])
            self.assertEqual(
                places_of(f'[limits.{name}]\nmode = "on"\nrate = 1'), [f"limits.{name}.mode"]
            )

    def test_bursts(self) -> None:
        """A burst is one or more, as one must always be able to come; idle_seconds has none. An address has one session
        or more."""
        for name in LIMITS[:4]:
            place = f"limits.{name}.burst"
            self.assertEqual(places_of(f"[limits.{name}]\nrate = 9\nburst = 0.5"), [place])
        place = "limits.idle_seconds.burst"
        self.assertEqual(places_of("[limits.idle_seconds]\nburst = 1"), [place])
        place = "limits.sessions_per_address.rate"
        self.assertEqual(places_of("[limits.sessions_per_address]\nrate = 0.5"), [place])

    def test_bans(self) -> None:
        """Bans may grow, and not shrink."""
        self.assertEqual(places_of("[limits]\nban_factor = 0.5"), ["limits.ban_factor"])
        self.assertEqual(places_of("[limits]\nban_after = -1"), ["limits.ban_after"])


class NotOffered(SynchronousTestCase):
    """What this version cannot do is an error: to ignore a limit would be to fail open."""

    def test_relays(self) -> None:
        """A relay that is not there is refused."""
        self.assertEqual(places_of('[proxy]\nrelay = "haproxy"'), ["proxy.relay"])
        for relay in ("auto", "transport", "epoll", "sockmap"):
            self.assertEqual(problems_of(f'[proxy]\nrelay = "{relay}"'), [])
