"""The configuration: its defaults, where it comes from, and what its sections mean."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import (
    Config,
    ConfigError,
    DialectConfig,
    FramingConfig,
    GameConfig,
    Problem,
    ServerConfig,
    load,
    parse,
)
from gameproxy.config_values import listening_endpoint
from gameproxy.framing import FORMATS

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


class Defaults(SynchronousTestCase):
    """What a configuration is when nothing is said."""

    def test_values(self) -> None:
        """The defaults are the contract's."""
        config = Config()
        self.assertEqual(
            config.proxy.model_dump(),
            {
                "listen": ("tcp:7777",),
                "database": "sqlite:///farm.db",
                "secret_file": "farm.secret",
                "max_sessions": 9000,
                "max_unauthenticated": 1000,
                "drain_grace": 30.0,
                "stall_timeout": 30.0,
                "relay": "auto",
                "sockmap_after": 2.0,
            },
        )
        self.assertEqual(config.dialect.client, "native")
        self.assertEqual(
            config.auth.model_dump(),
            {
                "timeout": 5.0,
                "guests": False,
                "duplicates": "replace",
                "password_file": "",
                "password_without_tls": False,
                "ticket_lifetime": 300.0,
                "ticket_keys": (),
            },
        )
        self.assertEqual(
            config.selection.model_dump(),
            {
                "strategy": "packed",
                "max_load": 1.0,
                "queue_size": 1000,
                "queue_timeout": 60.0,
                "attempts": 3,
                "connect_timeout": 2.0,
                "handshake_timeout": 5.0,
            },
        )
        self.assertEqual(
            config.limits.modes,
            dict.fromkeys(
                (
                    "connections_per_second",
                    "frames_per_second",
                    "bytes_per_second",
                    "sessions_per_address",
                    "idle_seconds",
                ),
                "off",
            ),
        )
        self.assertEqual((config.games, config.servers), ((), ()))

    def test_an_empty_file_is_all_defaults(self) -> None:
        """To leave everything out is to take the defaults."""
        self.assertEqual(parse("", "/etc"), Config(folder=Path("/etc")))

    def test_game_and_server(self) -> None:
        """A game and a server that say only what they must have the contract's defaults."""
        config = parse(GAME + SERVER, "/etc")
        game, server = config.games[0], config.servers[0]
        self.assertEqual((game.min_ready, game.start_timeout, game.start_attempts), (0, 60.0, 2))
        self.assertEqual((game.stop_when_idle, game.stop_grace), (600.0, 30.0))
        self.assertEqual(server.key_file, "")

    def test_frozen(self) -> None:
        """A configuration cannot be changed under those who use it."""
        with self.assertRaises(ValidationError):
            Config().proxy.relay = "transport"


class Embedding(SynchronousTestCase):
    """Programs build the same objects without a file."""

    def test_from_objects(self) -> None:
        """Sections may be given as objects, and lists for what is a tuple then."""
        game = GameConfig(name="a", command=["x", "y"], capacity=2, max_servers=1)
        server = ServerConfig(id="s", game="b", host="::1", port=1, capacity=1)
        config = Config(games=[game, game.model_copy(update={"name": "c"})], servers=[server])
        self.assertEqual(config.games[0].command, ("x", "y"))
        self.assertEqual(config.game_names, ("a", "c", "b"))

    def test_sections_are_compared(self) -> None:
        """What sections must not be together is refused here too, all at once and placed."""
        game = GameConfig(name="a", command=["x"], capacity=2, max_servers=1)
        with self.assertRaises(ValidationError) as caught:
            Config(games=[game, game], framing=FramingConfig(max_frame=511))
        places = [line["loc"] for line in caught.exception.errors()]
        self.assertEqual(places, [("games", 1, "name"), ("framing", "max_frame")])


class Paths(SynchronousTestCase):
    """What relative paths are relative to."""

    def test_relative(self) -> None:
        """Three slashes, and a plain name, are relative to the folder of the file."""
        config = parse('[proxy]\ndatabase = "sqlite:///data/farm.db"\n', "/srv/game")
        self.assertEqual(config.database_path, Path("/srv/game/data/farm.db"))
        self.assertEqual(config.secret_path, Path("/srv/game/farm.secret"))
        self.assertEqual(config.resolve("/a"), Path("/a"))

    def test_absolute(self) -> None:
        """Four slashes are absolute."""
        config = parse('[proxy]\ndatabase = "sqlite:////var/farm.db"\n', "/srv")
        self.assertEqual(config.database_path, Path("/var/farm.db"))

    def test_always_absolute(self) -> None:
        """A path is absolute even where no folder is known: processes elsewhere are told of it."""
        self.assertEqual(Config().database_path, Path.cwd() / "farm.db")

    def test_other_databases(self) -> None:
        """Another scheme, too few slashes, no path, a query or a memory database are refused."""
        for url in (
            "postgresql:///farm",
            "sqlite://farm.db",
            "sqlite:///",
            "sqlite:////",
            "sqlite:///:memory:",
            "sqlite:///farm.db?mode=ro",
            "farm.db",
            "",
        ):
            text = f'[proxy]\ndatabase = "{url}"\n'
            self.assertEqual(places_of(text), ["proxy.database"], url)


class Loading(SynchronousTestCase):
    """Reading the file itself."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "gameproxy.toml"

    def load_problems(self) -> list[Problem]:
        with self.assertRaises(ConfigError) as caught:
            load(self.file)
        return caught.exception.problems

    def test_folder(self) -> None:
        """The folder is the file's, whether it is given as a path or as text."""
        self.file.write_text(GAME)
        self.assertEqual(load(self.file).folder, self.file.parent)
        self.assertEqual(load(str(self.file)), load(self.file))

    def test_a_server_is_a_farm(self) -> None:
        """A file with a server and no game is enough to run."""
        self.file.write_text(SERVER)
        self.assertEqual(load(self.file).game_names, ("a",))

    def test_empty_farm(self) -> None:
        """Without game and server there is nothing to run, told beside what else is wrong."""
        self.file.write_text("[proxy]\nrelay = 1\n")
        problems = self.load_problems()
        self.assertEqual([place for place, _ in problems], ["games", "proxy.relay"])
        self.assertIn("[[servers]]", problems[0][1])
        self.file.write_text("games = []")
        self.assertEqual([place for place, _ in self.load_problems()], ["games"])

    def test_absent(self) -> None:
        """That there is no file is told in words."""
        self.assertEqual(self.load_problems(), [("", "cannot be read: No such file or directory")])

    def test_folder_instead_of_a_file(self) -> None:
        """A folder is no file."""
        self.file.mkdir()
        self.assertEqual(self.load_problems(), [("", "cannot be read: Is a directory")])

    def test_not_utf8(self) -> None:
        """TOML is UTF-8; where it is not is told."""
        self.file.write_bytes(b"# \xff")
        self.assertEqual(self.load_problems(), [("", "is not UTF-8 at byte 2")])


class Syntax(SynchronousTestCase):
    """What is no TOML."""

    def test_line_and_column(self) -> None:
        """An error of syntax is told with its line and column."""
        ((place, message),) = problems_of("[proxy]\nlisten = nothing\n")
        self.assertEqual(place, "line 2, column 10")
        self.assertTrue(message.startswith("not TOML: "), message)

    def test_end(self) -> None:
        """So is one at the end."""
        self.assertEqual(places_of("[proxy]\nlisten = "), ["end of document"])

    def test_hostile(self) -> None:
        """Too deep and too long values are errors of syntax, not crashes."""
        for text in ("a = " + "[" * 100_000, "a = 1" + "0" * 5000):
            ((_, message),) = problems_of(text)
            self.assertTrue(message.startswith("not TOML: "), message)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever the text, there is a configuration or a list of problems."""
        for place, message in problems_of(text):
            self.assertTrue(message)
            self.assertTrue(place.isprintable())


class Framing(SynchronousTestCase):
    """Frame formats, by name and by field."""

    def test_names(self) -> None:
        """Each name gives its format."""
        for name, frame_format in FORMATS.items():
            self.assertEqual(FramingConfig(format=name).frame_format, frame_format)

    def test_unknown_name(self) -> None:
        """Another name is refused, and the names told."""
        ((place, message),) = problems_of('[framing]\nformat = "int64"')
        self.assertEqual(place, "framing.format")
        self.assertIn("vim-arcade", message)

    def test_fields_override(self) -> None:
        """A field beside a name replaces that field alone; without a name they replace int32's."""
        framing = FramingConfig(format="vim-arcade", byte_order="little", length_offset=0)
        self.assertEqual(framing.frame_format.byte_order, "little")
        self.assertEqual(framing.frame_format.length_offset, 0)
        self.assertEqual(framing.frame_format.max_frame, 1020)
        alone = FramingConfig(length_bytes="varint", varint_bytes=5).frame_format
        self.assertEqual((alone.length_bytes, alone.varint_bytes), ("varint", 5))
        self.assertEqual(alone.max_frame, FORMATS["int32"].max_frame)

    def test_impossible_field(self) -> None:
        """A field that the format refuses is told by its name."""
        for field, value in (("max_frame", 0), ("length_offset", -1), ("varint_bytes", 11)):
            place = f"framing.{field}"
            self.assertEqual(places_of(f"[framing]\n{field} = {value}"), [place])

    def test_own_frames_must_fit(self) -> None:
        """Where the proxy has frames of its own, the limit and the length field leave them room."""
        for fields in ("max_frame = 511", "length_bytes = 1"):
            text = f"[framing]\n{fields}\n"
            self.assertEqual(places_of(text), ["framing.max_frame"])
            preamble = text + '[dialect]\nclient = "preamble"'
            self.assertEqual(places_of(preamble), ["framing.max_frame"])
            self.assertEqual(problems_of(text + '[dialect]\nclient = "plain"'), [])
            handshake = '[dialect]\nclient = "plain"\nadmission = "handshake"'
            self.assertEqual(places_of(text + handshake), ["framing.max_frame"])
        self.assertEqual(problems_of('[framing]\nformat = "vim-arcade"'), [])
        self.assertEqual(problems_of("[framing]\nmax_frame = 512"), [])

    def test_short_frames(self) -> None:
        """Frames may not begin beyond the length of the proxy's own, where it has any."""
        text = "[framing]\nlength_adjustment = 17\n"
        self.assertEqual(places_of(text), ["framing.length_adjustment"])
        self.assertEqual(problems_of(text + '[dialect]\nclient = "plain"'), [])
        self.assertEqual(problems_of("[framing]\nlength_adjustment = 16"), [])


class Dialect(SynchronousTestCase):
    """The dialects, and how sessions are announced."""

    def test_admission(self) -> None:
        """Admission is a handshake unless clients are plain, or something else is said."""
        for client, admission in (
            ("native", "handshake"),
            ("preamble", "handshake"),
            ("plain", "none"),
        ):
            self.assertEqual(DialectConfig(client=client).admission, admission)
            self.assertEqual(
                parse(f'[dialect]\nclient = "{client}"', "/").dialect.admission, admission
            )
            chosen = DialectConfig(client=client, admission="proxy-v2")
            self.assertEqual(chosen.admission, "proxy-v2")

    def test_plain_has_one_game(self) -> None:
        """Plain clients cannot name a game: with two, none of them could be let in."""
        other = SERVER.replace('game = "a"', 'game = "b"')
        plain = '[dialect]\nclient = "plain"\n'
        self.assertEqual(places_of(plain + GAME + other), ["dialect.client"])
        self.assertEqual(problems_of(plain + GAME + SERVER), [])
        self.assertEqual(problems_of(GAME + other), [])


class Endpoints(SynchronousTestCase):
    """What ``listen`` describes."""

    def test_good(self) -> None:
        """A description gives its endpoint."""
        endpoint = listening_endpoint(MemoryReactor(), "tcp:7777")
        self.assertIsInstance(endpoint, TCP4ServerEndpoint)

    def test_backlog(self) -> None:
        """So many may wait as a flood brings, unless it says how many."""
        for description, backlog in (
            ("tcp:7777", 1024),
            ("tcp:port=7777", 1024),
            ("tcp:7777:interface=127.0.0.1", 1024),
            (r"tcp6:7777:interface=\:\:1", 1024),
            ("tcp:7777:backlog=5:interface=127.0.0.1", 5),
            ("tcp:7777:127.0.0.1", 50),
            ("tcp:7777:127.0.0.1:7", 7),
        ):
            reactor = MemoryReactor()
            listening_endpoint(reactor, description).listen(Factory())
            ((_, _, found, _),) = reactor.tcpServers
            self.assertEqual(found, backlog, description)

    def test_bad(self) -> None:
        """Whatever Twisted raises for a bad one comes as a ValueError with words."""
        for description in (
            "",
            "tcp",
            "tcp:x",
            "nope:1",
            "tcp:1:y=2",
            "systemd:domain=INET:index=9",
        ):
            with self.assertRaises(ValueError) as caught:
                listening_endpoint(MemoryReactor(), description)
            self.assertIn("is no endpoint to listen on: ", str(caught.exception))

    def test_file(self) -> None:
        """A file that is not there is told as such."""
        with self.assertRaises(ValueError) as caught:
            listening_endpoint(MemoryReactor(), "ssl:1:privateKey=/nowhere/key.pem")
        self.assertEqual(
            str(caught.exception), "names a file that cannot be read: No such file or directory"
        )
