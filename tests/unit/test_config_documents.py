"""The sample and the documentation of the configuration say what the models say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import (
    Config,
    FramingConfig,
    GameConfig,
    IdleLimitConfig,
    LimitConfig,
    ProxyConfig,
    ServerConfig,
    TicketKeyConfig,
    load,
    parse,
)
from gameproxy.framing import FORMATS

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "etc" / "gameproxy.toml"
DOCS = REPOSITORY / "docs" / "configuration.md"


def keys_of_model(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a section, without those that are sections or lists of tables themselves."""
    for name, field in model.model_fields.items():
        if not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            yield name


SECTIONS: dict[str, type[BaseModel]] = {
    **{
        name: field.annotation
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and name != "limits"
    },
    "games": GameConfig,
    "servers": ServerConfig,
    "auth.ticket_keys": TicketKeyConfig,
    **{
        f"limits.{name}": IdleLimitConfig if name == "idle_seconds" else LimitConfig
        for name in Config().limits.model_dump()
    },
}


def sample_in_full() -> str:
    """The sample with all that it shows in comments."""
    return re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", SAMPLE.read_text("utf-8"))


class Documents(SynchronousTestCase):
    """The sample and the documentation tell of every key."""

    def test_sections_are_all(self) -> None:
        """The tests below look at all sections that there are."""
        self.assertEqual(
            {name.split(".")[0] for name in SECTIONS}, set(Config.model_fields) - {"folder"}
        )

    def test_sample_loads(self) -> None:
        """The sample is valid, and shows the defaults."""
        config = load(SAMPLE)
        games = config.games
        self.assertEqual(config, Config(folder=SAMPLE.parent, games=games))
        ours = games[0].model_dump(include={"name", "command", "capacity", "max_servers"})
        self.assertEqual(games, (GameConfig(**ours),))

    def test_sample_has_every_key(self) -> None:
        """With all that it shows in comments, the sample is valid too and has every key of every section."""
        text = sample_in_full()
        parse(text, SAMPLE.parent)
        document = tomllib.loads(text)
        for section, model in SECTIONS.items():
            found = document
            for step in section.split("."):
                found = found[step]
            entry = found[0] if isinstance(found, list) else found
            self.assertEqual(set(entry), set(keys_of_model(model)), section)

    def test_sample_of_framing_is_int32(self) -> None:
        """The fields that the sample shows are int32's."""
        framing = tomllib.loads(sample_in_full())["framing"]
        self.assertEqual(FramingConfig(**framing).frame_format, FORMATS["int32"])

    def test_docs_have_every_key(self) -> None:
        """The documentation has a row for every key, under the heading of its section, with its default."""
        text = DOCS.read_text("utf-8")
        parts = dict(re.findall(r"(?ms)^## `\[+([\w.]+)\]+`$(.*?)(?=^## |\Z)", text))
        for section, model in SECTIONS.items():
            part = parts[
                {"limits": "limits.NAME"}.get(section.split(".")[0], section.split(".")[0])
            ]
            for key in keys_of_model(model):
                if key == "format":
                    self.assertIn('The default of `format` is `"int32"`', part)
                    continue
                row = re.search(rf"(?m)^\| `{key}` \| (.*?) \| ", part)
                assert row is not None, f"{section}.{key}"
                self.assertTrue(self.shows_default(row[1], section, model, key), f"{section}.{key}")
        for name in Config().limits.model_dump():
            self.assertIn(f"| `{name}` |", parts["limits.NAME"])

    def shows_default(self, cell: str, section: str, model: type[BaseModel], key: str) -> bool:
        """Whether a cell of the documentation says what the model says."""
        field = model.model_fields[key]
        if section == "framing":
            return True
        if field.is_required():
            return cell == "*required*"
        if field.default is None:
            return cell == "none"
        return tomllib.loads(f"a = {cell.split(';')[0].strip('`')}")["a"] == (
            list(field.default) if isinstance(field.default, tuple) else field.default
        )

    def test_examples_in_the_docs(self) -> None:
        """Every example in the documentation is valid (parse raises nothing)."""
        text = DOCS.read_text("utf-8")
        examples = re.findall(r"(?ms)^```toml$(.*?)^```$", text)
        self.assertEqual(len(examples), 7)
        for example in examples:
            parse(example, "/etc")

    def test_embedding_example_in_the_docs(self) -> None:
        """The example in Python does what it says."""
        config = Config(
            proxy=ProxyConfig(listen=["tcp:0"]),
            games=[GameConfig(name="garden", command=["./garden"], capacity=16, max_servers=4)],
        )
        self.assertEqual(config.game_names, ("garden",))
