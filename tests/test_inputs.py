"""Input files: regular files, pipes, standard input, and what cannot be read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from command import ARMVIRT, armvirt, interruptible

from armvirt.bundled import FOLDER
from armvirt.errors import ImageError
from armvirt.inputs import Input, read_text

HELLO = Path(FOLDER) / "hello.elf"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def write_later(path: Path, data: bytes, seconds: float = 0.2) -> threading.Thread:
    def write() -> None:
        time.sleep(seconds)
        path.write_bytes(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_regular_file_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with Input(path) as source:
        assert (source.size, source.data, source.read_at(2, 3), source.head(4)) == (
            10,
            None,
            b"234",
            b"0123",
        )
        with pytest.raises(ImageError, match="truncated"):
            source.read_at(8, 3)
        with path.open("ab") as file:
            file.write(b"more")
        assert source.head() == b"0123456789"  # a file that grows is read as it was
        os.truncate(path, 4)
        with pytest.raises(ImageError, match="shortened"):
            source.read_at(0, 10)


def test_a_fifo_is_read_to_its_end_even_if_its_writer_comes_late(tmp_path: Path) -> None:
    path = fifo(tmp_path)
    thread = write_later(path, b"x" * 100_000)
    with Input(path) as source:
        assert (source.size, source.read_at(99_999, 1)) == (100_000, b"x")
    thread.join()


def test_a_pipe_is_read_no_further_than_there_is_room(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, bytes(5000))  # and it stays open
    with pytest.raises(ImageError, match="more than the 4096 bytes"):
        Input(f"/dev/fd/{read}", most=4096)
    os.close(read)
    os.close(write)


def test_what_is_no_file(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    for path, says in (
        ("/dev/zero", "it is a character device, not a regular file or a pipe"),
        (str(tmp_path), "it is a directory; name a kernel in it"),
        (str(tmp_path / "socket"), "No such device or address"),
        ("/proc/self/status", "it is empty"),
        (str(tmp_path / ("x" * 300)), "File name too long"),
        ("a\0b", "embedded null"),
    ):
        with pytest.raises(ImageError, match=says):
            Input(path, "kernel")
    listening.close()


def test_too_few_file_descriptors_are_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(ImageError, match="raise ulimit -n"):
        Input(HELLO)


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("λ")
    assert read_text(path, "script", 2) == "λ"
    with pytest.raises(ImageError, match="more than 0 MiB"):
        read_text(path, "script", 1)
    path.write_bytes(b"\xff")
    with pytest.raises(ImageError, match="not UTF-8 text; is it the script"):
        read_text(path, "script", 10)


@pytest.mark.parametrize(
    "words", [["run"], ["run", "hello", "--script"], ["run", "hello", "--dtb"]], ids=" ".join
)
def test_waiting_for_a_writer_ends_with_ctrl_c_and_with_the_limit(
    tmp_path: Path, words: list[str]
) -> None:
    words = [*words, str(fifo(tmp_path))]
    process = subprocess.Popen(
        [*ARMVIRT, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=interruptible,
    )  # fmt: skip
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "armvirt: interrupted\n")
    done = armvirt(*words, "--timeout", "0.5s", timeout=20)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_guest_comes_through_standard_input(name: str) -> None:
    with subprocess.Popen(["cat", str(HELLO)], stdout=subprocess.PIPE) as cat:
        done = armvirt("run", name, stdin=cat.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("VERDICT: PASS")
