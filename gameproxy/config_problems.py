"""What is wrong with a configuration, told with its places in the file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Problem = tuple[str, str]
"""A place in the file, as a TOML path such as ``games[1].capacity``, and what is wrong there."""
Place = tuple[str | int, ...]
"""The same place as pydantic names it: keys, and numbers in arrays."""


class ConfigError(Exception):
    """A configuration cannot be used.

    :param problems: all that is wrong with it. A place is empty when the whole file is meant.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(": ".join(filter(None, problem)) for problem in self.problems)


class ConfigurationError(Exception):
    """The proxy cannot run so; the text says what to do."""


def read_document(text: str) -> dict[str, Any]:
    """Read TOML.

    :raises ConfigError: that is none; with the place.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax_problem(error)]) from error


def duplicates(document: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Names that stand twice in a document that need not be valid otherwise."""
    auth = document.get("auth")
    ticket_keys = auth.get("ticket_keys") if isinstance(auth, Mapping) else None
    lists: list[tuple[Place, str, object]] = [
        (("auth", "ticket_keys"), "id", ticket_keys),
        (("games",), "name", document.get("games")),
        (("servers",), "id", document.get("servers")),
    ]
    for place, key, entries in lists:
        first: dict[str, int] = {}
        for index, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
            name = entry.get(key) if isinstance(entry, Mapping) else None
            if isinstance(name, str) and first.setdefault(name, index) != index:
                message = f"is the same as that of {toml_path((*place, first[name]))}"
                yield (*place, index, key), message


def invalid(found: Iterable[tuple[Place, str]]) -> ValidationError:
    """What a validator raises to give each of several problems its place."""
    return ValidationError.from_exception_data(
        "Config",
        [
            InitErrorDetails(
                type=PydanticCustomError("gameproxy", "{message}", {"message": message}),
                loc=place,
                input=None,
            )
            for place, message in found
        ],
    )


PLAINER: Final = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "tuple_type": "must be an array",
    "model_type": "must be a table",
}


def problems_in(error: ValidationError) -> Iterator[Problem]:
    """What is wrong with a document that is no configuration, or no section of one."""
    for line in error.errors(include_url=False, include_input=False):
        message = line["msg"].removeprefix("Value error, ")
        message = re.sub(r"^\w+ should (be|have) ", r"must \1 ", message)
        yield toml_path(line["loc"]), PLAINER.get(line["type"], message)


def _syntax_problem(error: Exception) -> Problem:
    text, _, place = str(error).rstrip(")").rpartition(" (at ")
    return (place, f"not TOML: {text}") if text else ("", f"not TOML: {error}")


def toml_path(place: Place) -> str:
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            key = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step)
            path += f".{key}" if path else key
    return path
