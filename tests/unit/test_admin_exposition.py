"""gameproxy.admin.exposition: the metrics, as Prometheus reads them, and what is said of them"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admin.exposition import SESSION_STATES, Exposition, Reading
from gameproxy.admin.process import ProcessReading
from gameproxy.admin.tally import SessionTally
from gameproxy.farm.counts import FarmCounts, GameCounts, Queue
from gameproxy.interfaces import Traffic
from gameproxy.limit_counts import LIMITS, LimitCounts
from gameproxy.metrics import BOUNDS, Metrics
from gameproxy.phases import Phase
from gameproxy.proxied import HeaderCounts
from gameproxy.reasons import CloseReason
from tests.pages import DOCS, ROOT

GAMES = ("chess", "go")
NOTHING = Reading(
    ready=True,
    games=GAMES,
    sessions=SessionTally(0, 0, by_relay=Counter(transport=0, epoll=0, sockmap=0)),
    ended={},
    phases=Metrics().phases,
    outcomes={},
    turned_away=0,
    headers=HeaderCounts(),
    early=(0, 1000),
    limits={"max_sessions": 5, "max_unauthenticated": 3, "unauthenticated": 0},
    broken=LimitCounts({"idle_seconds": "enforce", "frames_per_second": "dry_run"}),
    process=ProcessReading(1.5, 2, 3, 4.5, 6, 7),
    farm=FarmCounts({game: GameCounts() for game in GAMES}, {}, 1, 0),
)
LABELS = {
    "state": {*SESSION_STATES, "starting", "ready", "draining", "lost"}
    | {"connected", "reserved", "free"},
    "game": {"", *GAMES},
    "relay": {"transport", "epoll", "sockmap"},
    "reason": {reason.value for reason in CloseReason},
    "source": {"client", "server"},
    "phase": {"expecting", "authenticating", "selecting", "connecting"},
    "mechanism": {"ticket", "password", "guest", "other"},
    "result": {"accepted", "refused", "throttled", "broken", "cancelled"},
    "kind": {"player", "address"},
    "limit": set(LIMITS),
    "mode": {"off", "dry_run", "enforce"},
    "header": {"passed", "own", "unused", "untrusted", "bad", "late", "unfinished"},
}
"""The values that each label may have; of ``le`` and ``version`` others see to that."""
_NAME = re.compile(r"\b(?:gameproxy|process)_[a-z_]+\b")


def families(reading: Reading) -> dict[str, Any]:
    """The metrics of a reading, read again as Prometheus would."""
    text = Exposition().text(reading).decode("utf-8")
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Any) -> dict[tuple[str, ...], float]:
    """The samples of a metric, by the values of their labels, in the order of these labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in family.samples
    }


class ExpositionTests(SynchronousTestCase):
    """Readings, written down and read again."""

    def test_from_the_start(self) -> None:
        """All series are there before anything has happened, at 0."""
        found = families(NOTHING)
        ended = values(found["gameproxy_sessions_ended"])
        self.assertEqual(ended, {(reason.value,): 0 for reason in CloseReason})
        self.assertEqual(len(values(found["gameproxy_sessions"])), 3 + 4 * len(GAMES))
        self.assertEqual(len(values(found["gameproxy_authentications"])), 20)
        self.assertEqual(len(values(found["gameproxy_farm_servers"])), 4 * len(GAMES))
        self.assertEqual(values(found["gameproxy_farm_bans"]), {("player",): 0, ("address",): 0})
        for name in ("relayed_frames", "relayed_bytes", "relaying_sessions", "sessions_started"):
            self.assertEqual(set(values(found[f"gameproxy_{name}"]).values()), {0}, name)

    def test_series_stay(self) -> None:
        """What happens makes no series that were not there before, but for states in which no session stays."""
        busy = replace(
            NOTHING,
            sessions=SessionTally(4, 9, Counter({(s, "go"): 1 for s in SESSION_STATES[2:]})),
            ended=dict.fromkeys(CloseReason, 2),
            outcomes={("guest", "accepted"): 3},
            farm=replace(NOTHING.farm, bans={"player": 4}) if NOTHING.farm else None,
        )

        def series(reading: Reading) -> set[Any]:
            return {
                (sample.name, *sorted(sample.labels.items()))
                for family in families(reading).values()
                for sample in family.samples
                if family.name != "gameproxy_relaying_sessions"
            }

        self.assertEqual(series(busy), series(NOTHING))

    def test_numbers(self) -> None:
        """Each number is where it belongs."""
        found = families(
            replace(
                NOTHING,
                sessions=SessionTally(
                    3,
                    9,
                    Counter({("relaying", "go"): 2, ("expecting", ""): 1}),
                    Counter(epoll=2),
                    Traffic(1, 20, 3, 40),
                ),
                ended={CloseReason.LEFT: 9},
                outcomes={("ticket", "refused"): 5},
                turned_away=6,
                headers=HeaderCounts(untrusted=8),
                early=(17, 1000),
                limits={"max_sessions": 5, "max_unauthenticated": 3, "unauthenticated": 2},
                farm=FarmCounts(
                    {"go": GameCounts({"ready": 2, "lost": 1}, 7, 1, 8, 3, Queue(4, 2.5))},
                    {"address": 11},
                    2,
                    77,
                ),
            )
        )

        def value(name: str, *labels: str) -> float:
            return values(found[f"gameproxy_{name}"])[labels]

        self.assertEqual(value("sessions", "go", "relaying"), 2)
        self.assertEqual(value("sessions", "", "expecting"), 1)
        self.assertEqual(value("relaying_sessions", "epoll"), 2)
        self.assertEqual(value("sessions_started"), 12)
        self.assertEqual(value("sessions_ended", "left"), 9)
        self.assertEqual(value("relayed_frames", "client"), 1)
        self.assertEqual(value("relayed_frames", "server"), 3)
        self.assertEqual(value("relayed_bytes", "client"), 20)
        self.assertEqual(value("relayed_bytes", "server"), 40)
        self.assertEqual(value("authentications", "ticket", "refused"), 5)
        self.assertEqual(value("connections_turned_away"), 6)
        self.assertEqual(value("proxied_connections", "untrusted"), 8)
        self.assertEqual((value("early_bytes"), value("max_early_bytes")), (17, 1000))
        self.assertEqual(value("unauthenticated_sessions"), 2)
        self.assertEqual(value("max_unauthenticated_sessions"), 3)
        self.assertEqual(value("max_sessions"), 5)
        self.assertEqual(value("farm_servers", "go", "lost"), 1)
        slots = {
            state: value("farm_slots", "go", state) for state in ("connected", "reserved", "free")
        }
        self.assertEqual(slots, {"connected": 7, "reserved": 1, "free": 8})
        self.assertEqual(value("farm_queue_sessions", "go"), 4)
        self.assertEqual(value("farm_queue_oldest_seconds", "go"), 2.5)
        self.assertEqual(value("farm_failed_starts", "go"), 3)
        self.assertEqual(value("farm_bans", "address"), 11)
        self.assertEqual((value("farm_proxies"), value("farm_sessions_relayed")), (2, 77))
        self.assertEqual((value("ready"), value("farm_up")), (1, 1))

    def test_limits(self) -> None:
        """Each limit is told with its mode, and how often it was broken."""
        broken = LimitCounts({"frames_per_second": "dry_run"})
        broken.count("frames_per_second", 40)
        broken.count("frames_per_second", 2, is_first=False)
        found = families(replace(NOTHING, broken=broken))
        for name, number in (("sessions", 1), ("units", 42)):
            samples = found[f"gameproxy_limit_{name}"].samples
            values = {(s.labels["limit"], s.labels["mode"]): s.value for s in samples}
            expected = {(limit, "off"): 0 for limit in LIMITS if limit != "frames_per_second"}
            self.assertEqual(values, expected | {("frames_per_second", "dry_run"): number})

    def test_histograms(self) -> None:
        """Buckets are cumulative up to all, with the sum of seconds, for each phase by itself."""
        metrics = Metrics()
        for seconds in (0.0005, 0.3, 100.0):
            metrics.phases[Phase.SETUP].add(seconds)
        metrics.phases[Phase.SELECTING].add(0.2)
        found = families(replace(NOTHING, phases=metrics.phases))
        whole = found["gameproxy_setup_seconds"].samples
        buckets = {s.labels["le"]: s.value for s in whole if s.name.endswith("_bucket")}
        self.assertEqual(len(buckets), len(BOUNDS) + 1)
        self.assertEqual((buckets["0.001"], buckets["0.5"], buckets["60.0"]), (1, 2, 2))
        self.assertEqual(buckets["+Inf"], 3)
        rest = {s.name.rpartition("_")[2]: s.value for s in whole if "le" not in s.labels}
        self.assertEqual(rest["count"], 3)
        self.assertAlmostEqual(rest["sum"], 100.3005)
        counts = {
            sample.labels["phase"]: sample.value
            for sample in found["gameproxy_setup_phase_seconds"].samples
            if sample.name.endswith("_count")
        }
        self.assertEqual(
            counts, {"expecting": 0, "authenticating": 0, "selecting": 1, "connecting": 0}
        )

    def test_no_database(self) -> None:
        """Without the database nothing is said of the farm, rather than something old; the rest is there."""
        found = families(replace(NOTHING, farm=None))
        farm = [name for name in found if name.startswith("gameproxy_farm")]
        self.assertEqual(farm, ["gameproxy_farm_up"])
        self.assertEqual(values(found["gameproxy_farm_up"]), {(): 0})
        self.assertIn("gameproxy_sessions", found)

    def test_labels(self) -> None:
        """No label has a value from outside: each has one of few words; nothing is counted by player or address."""
        for family in families(NOTHING).values():
            for sample in family.samples:
                for label, value in sample.labels.items():
                    if label not in ("le", "version"):
                        self.assertIn(value, LABELS[label], f"{sample.name} {label}")

    def test_conventions(self) -> None:
        """Names are Prometheus' way: a prefix, a base unit where there is one, total for what is counted."""
        for family in families(NOTHING).values():
            self.assertRegex(family.name, r"^(gameproxy|process)_[a-z_]+$")
            self.assertTrue(family.documentation.endswith("."), family.name)
            self.assertNotRegex(family.name, r"_(ms|milliseconds|kilobytes|count|info_total)$")
            if family.type == "counter":
                names = {sample.name for sample in family.samples}
                self.assertTrue(all(re.search(r"_(total|created)$", name) for name in names), names)
            if family.type == "histogram":
                self.assertTrue(family.name.endswith("_seconds"), family.name)

    def test_process(self) -> None:
        """What the process takes has the names that such numbers have everywhere."""
        found = families(NOTHING)
        names = ("cpu_seconds", "resident_memory_bytes", "virtual_memory_bytes")
        names += ("start_time_seconds", "open_fds", "max_fds")
        numbers = [values(found[f"process_{name}"])[()] for name in names]
        self.assertEqual(numbers, [1.5, 2, 3, 4.5, 6, 7])

    def test_own_registry(self) -> None:
        """Nothing of it is in the registry that the whole program shares, so that several proxies can be in one."""
        Exposition(), Exposition()
        names = [family.name for family in REGISTRY.collect()]
        self.assertFalse([name for name in names if name.startswith("gameproxy")])


def sample_names() -> set[str]:
    """The names of all series."""
    return {sample.name for family in families(NOTHING).values() for sample in family.samples}


def dashboard_queries() -> list[str]:
    """All that the dashboard asks Prometheus."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(value[key] for key in ("expr", "query", "definition") if key in value)
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                look(item)

    look(json.loads((ROOT / "etc" / "grafana-dashboard.json").read_text("utf-8")))
    return [query for query in found if isinstance(query, str) and query != "prometheus"]


@pytest.mark.parametrize("query", dashboard_queries())
def test_dashboard(query: str) -> None:
    """Each query of the dashboard names metrics that exist, selects by labels that they have, and none without."""
    names = _NAME.findall(query)
    assert names
    assert set(names) <= sample_names()
    all_samples = [s for family in families(NOTHING).values() for s in family.samples]
    for name, selector in re.findall(r"\b((?:gameproxy|process)_[a-z_]+)\{([^}]*)\}", query):
        labels = {label for s in all_samples if s.name == name for label in s.labels}
        wanted = set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) - {"job", "instance"}
        assert wanted <= labels, (name, wanted)
    for labels_by in re.findall(r"by \(([^)]*)\)", query):
        for label in labels_by.split(", "):
            assert label == "instance" or any(
                label in s.labels for s in all_samples if s.name in names
            )


def test_dashboard_shows_all() -> None:
    """Each metric of gameproxy's own is on the dashboard."""
    shown = {name for query in dashboard_queries() for name in _NAME.findall(query)}
    bare = {re.sub(r"_(bucket|total)$", "", name) for name in shown}
    missing = {name for name in families(NOTHING) if name.startswith("gameproxy_")} - bare
    assert missing == set()


def test_page() -> None:
    """The page names each metric, with its labels, and no other."""
    page = (DOCS / "operating.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `((?:gameproxy|process)_\w+)` \|([^|]*)\|", page, re.MULTILINE))
    wanted = {}
    for family in families(NOTHING).values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for s in family.samples for label in s.labels} - {"le"}
        wanted[name] = labels
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows.items()}
    assert told == wanted
