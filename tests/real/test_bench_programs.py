"""The C programs of the benchmark that relays notice what is not as it should be."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEADER = 4
GAME, TWICE, LATER = b"\x10", b"\x11", b"\x12"
PATIENCE = 20.0

Answer = Callable[[int, bytes], bytes]
"""What comes back for a frame, by its number."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The compiled programs, by name."""
    look = ["cc", "-E", "-include", "openssl/hmac.h", "-xc", "/dev/null"]
    if (
        shutil.which("cc") is None
        or subprocess.run(look, capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no C compiler, or libcrypto's headers are missing")
    folder = tmp_path_factory.mktemp("programs")
    for name, libraries in (("relay_load", []), ("game_server", ["-lcrypto"])):
        source = str(BENCHMARKS / f"{name}.c")
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, "-o", str(folder / name), source, *libraries], check=True)
    return {name: folder / name for name in ("relay_load", "game_server")}


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    words = [str(word) for word in command]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], letter: str) -> str:
    """Tell a load something; its answer, if it gives one."""
    assert process.stdin and process.stdout
    process.stdin.write(letter)
    process.stdin.flush()
    return "" if letter == "g" else process.stdout.readline()


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A game server for one session that answers each frame so; its port."""

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rb") as stream:
            number = 0
            while header := stream.read(HEADER):
                frame = header + stream.read(int.from_bytes(header, "big"))
                try:
                    connection.sendall(answer(number, frame))
                except OSError:
                    return  # the load has seen enough
                number += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def load(programs: dict[str, Path], answer: Answer, *pace: object) -> dict[str, int]:
    """What a load of one session says at its end, when it has had some frames answered so."""
    with (
        answering(answer) as port,
        running(programs["relay_load"], "bare", port, 1, 64, *pace) as process,
    ):
        assert process.stdout
        opened = json.loads(process.stdout.readline())
        assert opened == {"opened": 1, "faults": 0}
        say(process, "g")
        say(process, "b")
        while not (measured := json.loads(say(process, "e")))["faults"] and measured["trips"] < 50:
            pass
        said: dict[str, int] = json.loads(say(process, "s"))
        return said


def honest(_number: int, frame: bytes) -> bytes:
    return frame


def changes_the_last_byte(number: int, frame: bytes) -> bytes:
    return frame if number < 9 else frame[:-1] + bytes([frame[-1] ^ 1])


def changes_the_type(number: int, frame: bytes) -> bytes:
    return frame if number < 9 else frame[:HEADER] + b"\x13" + frame[HEADER + 1 :]


def repeats(number: int, frame: bytes) -> bytes:
    return frame if number < 9 else frame + frame


def forgets(number: int, frame: bytes) -> bytes:
    return b"" if number == 9 else frame


def swaps(number: int, frame: bytes) -> bytes:
    """The two halves of the noise in a frame change places."""
    half = HEADER + 32
    return frame if number < 9 else frame[:half] + frame[half + 16 :] + frame[half : half + 16]


@pytest.mark.parametrize("window", [1, 8])
def test_honest(programs: dict[str, Path], window: int) -> None:
    """When every frame comes back as it was, there are no faults, and as many have come back as were sent."""
    said = load(programs, honest, "closed", window)
    assert said["faults"] == 0
    assert said["sent"] == said["back"] > 50


@pytest.mark.parametrize(
    "lie",
    [changes_the_last_byte, changes_the_type, repeats, forgets, swaps],
    ids=lambda lie: lie.__name__,
)
def test_lies(programs: dict[str, Path], lie: Answer) -> None:
    """A frame that comes back changed, twice, or not at all is a fault."""
    assert load(programs, lie, "closed", 8)["faults"] == 1


def test_twice(programs: dict[str, Path]) -> None:
    """In paced work each frame comes back at once and once more; a second copy before the first is a fault."""

    def at_once(_number: int, frame: bytes) -> bytes:
        return frame + frame[:HEADER] + LATER + frame[HEADER + 1 :]

    def before(number: int, frame: bytes) -> bytes:
        return at_once(number, frame) if number < 9 else at_once(0, frame)[len(frame) :] + frame

    said = load(programs, at_once, "paced", 500)
    assert said["faults"] == 0
    assert said["back"] == 2 * said["sent"]
    assert load(programs, before, "paced", 500)["faults"] == 1


def frame_of(type: bytes, body: bytes) -> bytes:
    return (1 + len(body)).to_bytes(HEADER, "big") + type + body


def test_game_server(programs: dict[str, Path]) -> None:
    """It sends all back as it comes, byte by byte too; frames of one type once more, never within another frame."""
    twice, long = frame_of(TWICE, b"twice"), frame_of(GAME, bytes(range(256)) * 2000)
    with running(programs["game_server"], "bare") as process:
        assert process.stdin and process.stdout
        address = "127.0.0.1", int(process.stdout.readline())
        with socket.create_connection(address, PATIENCE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(twice)
            for at in range(len(long[:20])):
                client.sendall(long[at : at + 1])
            with client.makefile("rb") as stream:
                first = stream.read(len(twice) + 20)
                # Longer than the second copy waits: it must not come into the middle of the frame.
                client.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    client.recv(1)
                client.settimeout(PATIENCE)
            sender = threading.Thread(target=client.sendall, args=(long[20:],))
            sender.start()
            rest = b""
            while len(rest) < len(long) - 20 + len(twice):
                rest += client.recv(65536)
            sender.join()
        process.stdin.close()
        counted = json.loads(process.stdout.readline())
    assert first == twice + long[:20]
    assert rest == long[20:] + frame_of(LATER, b"twice")
    assert counted == {"accepted": 1, "admitted": 0, "faults": 0}
