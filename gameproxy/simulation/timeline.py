"""A run as a picture: one HTML file with its lanes, frames, faults and failure, which needs nothing from outside."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise
from string import Template
from typing import Any, Final

from gameproxy.simulation.runs import Run, command
from gameproxy.simulation.timeline_picture import Picture
from gameproxy.simulation.timeline_reading import read

MICROSECONDS: Final = 1_000_000
SCRIPTS: Final = ("timeline_drawing.js", "timeline.js")


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the picture.

    :param title: says which run it is.
    :param facts: more about it, a few words each.
    :param commands: what each is for, and the command.
    """

    title: str
    facts: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()


def timeline(run: Run, trace: Sequence[str], sha256: str, file: str | None = None) -> str:
    """The timeline of a run.

    :param trace: the lines of its trace.
    :param sha256: of the trace.
    :param file: the name of the file that the run is in, for the commands.
    :return: HTML.
    """
    clients = run.clients - len(run.left_out)
    facts = [
        f"{len(run.faults)} faults",
        f"{run.proxies} {'proxy' if run.proxies == 1 else 'proxies'}",
        f"trace {sha256[:12]}",
    ]
    again = command(run)
    commands = [] if again is None else [("again", again)]
    if file is not None:
        commands += [
            ("replay", f"gameproxy sim replay {file}"),
            ("shrink", f"gameproxy sim shrink {file}"),
        ]
    elif again is not None:
        kept = f"{run.seed}.run"
        commands.append(("shrink", f"{again} --trace {kept}; gameproxy sim shrink {kept}"))
    title = f"seed {run.seed} · {run.scenario} · {clients} clients"
    return page(Heading(title, facts, commands), trace)


def page(heading: Heading, trace: Sequence[str]) -> str:
    """The timeline of any trace, also of a test's.

    :return: HTML.
    """
    picture = read(trace)
    here = files("gameproxy.simulation")
    verdict = "all held" if picture.failure is None else "failed"
    return Template(here.joinpath("timeline.html").read_text()).substitute(
        title=escape(f"{heading.title}: gameproxy sim"),
        heading=escape(heading.title),
        verdict=verdict,
        verdict_class="held" if picture.failure is None else "failed",
        facts=escape(" · ".join(_facts(heading, picture))),
        failure=_failure(picture),
        commands="\n".join(_command(*named) for named in heading.commands),
        faults=_faults(picture),
        style=here.joinpath("timeline.css").read_text(),
        script="".join(here.joinpath(name).read_text() for name in SCRIPTS),
        data=_packed(picture),
    )


def _facts(heading: Heading, picture: Picture) -> list[str]:
    facts = [f"{_seconds(picture.end, 1)} of virtual time", *heading.facts]
    facts.append(f"{len(picture.lines) + picture.left_out} lines")
    if picture.left_out:
        facts.append(f"the first {picture.left_out} lines of traffic are not shown")
    reasons = sorted(picture.reasons.items(), key=lambda item: (-item[1], item[0]))
    if reasons:
        facts.append("sessions over: " + ", ".join(f"{count} {name}" for name, count in reasons))
    return facts


def _failure(picture: Picture) -> str:
    if picture.failure is None:
        return ""
    at, what = picture.failure
    return (
        f'<p class="failure"><strong>{escape(what)}</strong> <span>at {_seconds(at)}</span>'
        f' <button type="button" data-at="{at}">show</button></p>'
    )


def _command(name: str, words: str) -> str:
    return (
        f'<span class="command">{escape(name)} <code>{escape(words)}</code>'
        '<button type="button" data-copy>copy</button></span>'
    )


def _faults(picture: Picture) -> str:
    items = [
        f'<li><button type="button" data-at="{at}"><time>{_seconds(at, 3)}</time> {escape(what)}</button></li>'
        for at, what in picture.faults
    ]
    return f'<ul class="faults">{"".join(items)}</ul>' if items else ""


def _seconds(at: int, places: int = 6) -> str:
    return f"{at / MICROSECONDS:.{places}f} s"


def _packed(picture: Picture) -> str:
    """The picture for the script: JSON, deflated, in base64, so that nothing in it is markup."""
    lines = picture.lines
    times = [0, *(line.at for line in lines)]
    content: dict[str, Any] = {
        "end": picture.end,
        "farm": picture.farm,
        "faults": picture.faults,
        "troubles": picture.troubles,
        "settles": picture.settles,
        "failure": picture.failure,
        "lanes": [
            (lane.kind, lane.name, lane.spans, lane.steps, lane.capacity) for lane in picture.lanes
        ],
        "at": [after - before for before, after in pairwise(times)],
        "lane": [line.lane for line in lines],
        "source": [line.source for line in lines],
        "travel": [line.travel for line in lines],
        "client": [line.client for line in lines],
        "text": "\n".join(line.text for line in lines),
    }
    return b64encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)).decode()
