"""The program in the kernel: how it is built, shipped and loaded, and what that takes."""

from __future__ import annotations

import gc
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from gameproxy.relay.sockmap import SockmapPlane, Unavailable, availability, load, why_not
from gameproxy.relay.sockmap.image import SHIPPED, SOURCE, Image
from gameproxy.relay.sockmap.layout import Record, Stop
from tests.pages import DOCS, ROOT, blocks_of
from tests.real.sockmap_rig import GAME, Session

NOBODY = 65534
CLANG = "14."
"""The compiler that made what is shipped; others make other instructions of the same source."""


def test_shipped_from_this_source() -> None:
    """What is shipped says that it was built from the source that lies beside it: else run ``make bpf``."""
    image = Image.decode(SHIPPED.read_bytes())
    assert image.source == sha256(SOURCE.read_bytes()).hexdigest()
    assert Image.decode(image.encode()) == image
    assert str(ROOT).encode() not in SHIPPED.read_bytes()


def test_build(tmp_path: Path) -> None:
    """``make bpf`` makes the very bytes that are shipped."""
    for program in ("make", "clang", "bpftool"):
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed: apt-get install make clang libbpf-dev bpftool"
            )
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\S+)", version)
    if found is None or not found[1].startswith(CLANG):
        pytest.skip(f"clang {CLANG}* is needed to have the same bytes, and this is: {version}")
    built = tmp_path / SHIPPED.name
    make = ["make", "--silent", "bpf", f"BPF_INTO={tmp_path}", f"BPF_WORK={tmp_path}"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert built.read_bytes() == SHIPPED.read_bytes()


def test_layout() -> None:
    """Kernel and user space have the same idea of what they share."""
    source = SOURCE.read_text()
    body = re.search(r"^struct lane \{\n(.*?)^\};", source, re.M | re.S)
    assert body
    sizes = {"__u64": 8, "__u32": 4, "__u16": 2, "__u8": 1, "struct bucket": 40}
    fields = re.findall(r"^\t(__u\d+|struct bucket) (\w+);", body[1], re.M)
    assert [(name, sizes[type_]) for type_, name in fields] == [
        (name, getattr(Record, name).size) for name, *_ in Record._fields_
    ]
    stops = re.findall(r"\bSTOP_(\w+) = (\d+)", source)
    assert [(name, int(number)) for name, number in stops] == [(one.name, one) for one in Stop]


def test_skeletons_that_are_none() -> None:
    """What is no skeleton, or is not all of one, is not taken for one."""
    good = 'opts.data_sz = 2;\nopts.data = (void *)"\\x41\\\n\\0";\nopts.insns_sz = 1;\nopts.insns = (void *)"\\x7f";'
    image = Image.of_skeleton("struct bpf_map_desc one;\n" + good, b"")
    assert (image.maps, image.data, image.instructions) == (("one",), b"A\0", b"\x7f")
    for bad in ("", good.replace("data_sz = 2", "data_sz = 3"), good.replace("insns", "other")):
        with pytest.raises(ValueError, match="skeleton"):
            Image.of_skeleton(bad, b"")


def test_verifier(plane: SockmapPlane) -> None:
    """The verifier takes the program, for planes of any size, quickly."""
    for pairs in (1, 2, 9000):
        large = load(pairs)
        large.close()
    for pairs in (0, 1 << 21):
        with pytest.raises(ValueError, match="a plane is made for"):
            SockmapPlane(pairs)


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_stays_open(plane: SockmapPlane) -> None:
    """A plane that is closed has left nothing behind."""
    before = descriptors()
    for _ in range(3):
        load(3).close()
    assert descriptors() == before


def test_a_signal_meanwhile(plane: SockmapPlane) -> None:
    """A signal that comes while the program is loaded stops nothing, whenever it comes, and leaves nothing open."""
    before = len([*Path("/proc/self/fd").iterdir()])
    came = []
    handler = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    try:
        for milliseconds in range(1, 31):
            signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
            load(1).close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert came
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_closed_pairs_are_forgotten(plane: SockmapPlane) -> None:
    """Of a pair that is closed nothing is kept, also if it had just stopped."""
    one = Session(plane)
    one.client.sendall(GAME[:1])
    while not one.to_server.unread:
        pass
    one.close()
    lane = weakref.ref(one.to_server)
    del one
    gc.collect()
    assert lane() is None
    assert plane.take_stopped() == []


def test_the_page(plane: SockmapPlane) -> None:
    """The program that the documentation shows does what it says there."""
    page = DOCS / "sockmap.md"
    [block] = (one for one in blocks_of(page.read_text()) if one.language == "python")
    exec(compile(block.text, page, "exec"), {"__name__": "page"})


def in_child(act: Callable[[], None]) -> None:
    """Do it in a child process, which must not raise."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(20)
            act()
        except BaseException as error:
            os.write(writer, repr(error).encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        text = told.read().decode()
    _, status = os.waitpid(child, 0)
    assert (status, text) == (0, "")


def become_nobody() -> None:
    """Give up all privileges, as ``twistd --uid`` does."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    status = Path("/proc/self/status").read_text()
    assert re.search(r"^CapEff:\s*0+$", status, re.M)


def test_without_privileges(plane: SockmapPlane) -> None:
    """What was loaded goes on working for a process that has given up its privileges."""

    def act() -> None:
        loaded = load(2)
        become_nobody()
        for _ in range(3):
            one = Session(loaded)
            one.client.sendall(GAME * 3)
            one.expect(one.server, GAME * 3)
            one.server_sends(GAME)
            one.client.sendall(GAME[:3])
            one.until(lambda one=one: one.to_server.ours)
            one.client.sendall(GAME[3:])
            one.expect(one.server, GAME)
            one.until(lambda one=one: not one.to_server.ours)
            one.close()

    in_child(act)


def test_why_not_without_privileges(plane: SockmapPlane) -> None:
    """Without privileges it cannot be loaded, and says which are missing."""

    def act() -> None:
        become_nobody()
        assert why_not() == "The process lacks CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF."

    in_child(act)


def test_why_not_refused(plane: SockmapPlane) -> None:
    """When the kernel refuses the program it says what the kernel says, and leaves nothing open."""

    def act() -> None:
        gc.collect()  # what other tests have left is closed now, and not meanwhile
        opened = descriptors()
        # The limit is for the numbers, and what other tests have open has higher ones.
        free = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1] + 1, free[-1] + 1))
        for descriptor in free:
            os.close(descriptor)
        assert why_not() == "The kernel does not load the program: Too many open files."
        assert descriptors() == opened

    in_child(act)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("release", "5.18.0-1-amd64", "Linux 5.18.0-1-amd64 is too old: 5.19 is needed."),
        ("release", "strange", "Linux strange is too old: 5.19 is needed."),
        ("machine", "sparc64", "The number of bpf(2) on sparc64 is not known."),
    ],
)
def test_why_not_elsewhere(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says when the machine is not one it can work on."""
    monkeypatch.setattr(platform, name, lambda: value)
    assert why_not() == text
    with pytest.raises(Unavailable, match=re.escape(text)):
        load(1)


def test_why_not_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says when this is not Linux."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    assert why_not() == "Sockets are relayed by the kernel on Linux only."


def test_why_not_types(
    plane: SockmapPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says when the kernel does not describe its types, without which the program cannot be fitted to it."""
    monkeypatch.setattr(availability, "_TYPES", tmp_path / "vmlinux")
    assert why_not() == f"The kernel does not describe its types ({tmp_path}/vmlinux is missing)."
