"""``armvirt run`` as a process: its output and its exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from command import ARMVIRT, armvirt, interruptible

from armvirt.bundled import FOLDER


def start(*words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """With SIGINT as at a terminal, whatever this test run has inherited."""
    return subprocess.Popen(
        [*ARMVIRT, *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )


def test_a_guest_that_passes() -> None:
    done = armvirt("run", "hello")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("VERDICT: PASS")
    assert re.fullmatch(
        r"armvirt: the guest passed \(.* of guest time, [\d,]+ instructions"
        r"(, \d+ % of them in polled waits)?\)\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["fail"], 1, "the guest says fail"),
        (["spin"], 3, "branches to itself"),
        (["wfi-forever"], 3, "WFI"),
        (["vector-fault"], 3, "vectors"),
        (["runaway", "--max-insns", "100k"], 4, "100000 instructions"),
        (["runaway", "--max-time", "1ms"], 4, "limit reached"),
        (["runaway", "--timeout", "0.3s"], 4, "limit reached"),
    ],
)
def test_how_runs_end(words: list[str], status: int, says: str) -> None:
    done = armvirt("run", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
    assert says in done.stderr


def test_a_trace_on_standard_output(tmp_path: Path) -> None:
    """It is the same as in a file, and alone there: the guest's console goes to standard error."""
    file = tmp_path / "t"
    plain = armvirt("run", "hello", "--trace", str(file))
    done = armvirt("run", "hello", "--trace", "-")
    assert (done.returncode, done.stdout) == (0, file.read_text())
    assert done.stderr == plain.stdout + plain.stderr
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()][:1] == ["header"]
    hashed = armvirt("run", "hello", "--trace", "-", "--trace-hash").stdout
    assert re.fullmatch("[0-9a-f]{64}\n", hashed.removeprefix(done.stdout)), (
        "the last line, as without a trace"
    )


def test_a_trace_on_a_standard_output_that_nobody_reads() -> None:
    with subprocess.Popen(
        [*ARMVIRT, "run", "vtimer-tick", "--trace", "-"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141


def test_a_device_tree_on_standard_output(tmp_path: Path) -> None:
    file = tmp_path / "t.dtb"
    armvirt("run", "hello", "--dump-dtb", str(file))
    done = subprocess.run(
        [*ARMVIRT, "run", "hello", "--dump-dtb", "-"], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, file.read_bytes(), b"")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trace", "hello", "--trace", "-"], "name a file, or use armvirt run --trace -"),
        (["test", "hello", "--junit", "-"], "name a file"),
    ],
)
def test_two_outputs_on_standard_output_are_refused(words: list[str], says: str) -> None:
    done = armvirt(*words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert says in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no GUEST given"),
        (["vtimer-tik"], "did you mean vtimer-tick"),
        (["./none.elf"], "no such file"),
        (["/"], "directory"),
        (["hello", "--initrd", "/none"], "/none: there is no such file"),
        (["hello", "--dtb", str(Path(FOLDER) / "hello.elf")], "not a device tree"),
        (["hello", "--script", "/none"], "/none: there is no such file"),
        (["smp-boot", "--cpus", "16"], "smp-boot was made for 1 to 8 CPUs, not for 16"),
        (["hello", "--cpu", "z80"], "'z80' is not one of cortex-a57"),
        (["hello", "--trace", "/none/t.jsonl"], "there is no directory /none"),
        (["hello", "--dump-dtb", "/"], "it is a directory"),
        (["hello", "--pace", "--no-pace"], "exclude each other"),
        (["-kernel", "Image", "-smp", "2", "-nographic"], "write armvirt run Image --cpus 2 ("),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: list[str], says: str) -> None:
    done = armvirt("run", *words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert done.stderr.startswith("armvirt: ")
    assert says in done.stderr


def test_nothing_is_written_when_the_input_is_wrong(tmp_path: Path) -> None:
    trace, tree = tmp_path / "t.jsonl", tmp_path / "t.dtb"
    assert armvirt("run", "hello", "--initrd", "/none", "--trace", str(trace)).returncode == 2
    assert armvirt("run", "hello", "--initrd", "/none", "--dump-dtb", str(tree)).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_the_device_tree_is_written_without_a_run(tmp_path: Path) -> None:
    done = armvirt("run", "hello", "--dump-dtb", str(tmp_path / "t.dtb"))
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "t.dtb").read_bytes()[:4] == b"\xd0\x0d\xfe\xed"


def test_the_trace_is_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    assert armvirt("run", "hello", "--trace", str(path)).returncode == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[0]["kind"], lines[0]["guest"]) == ("header", "hello")
    printed = bytes(line["byte"] for line in lines if line["kind"] == "console")
    assert b"VERDICT: PASS" in printed
    times = [line["ns"] for line in lines[1:]]
    assert times == sorted(times)


def test_the_hash_is_the_last_line_and_does_not_depend_on_the_engine(tmp_path: Path) -> None:
    runs = [
        armvirt("run", "hello", "--trace-hash"),
        armvirt("run", "hello", "--trace-hash", "--engine", "portable"),
        armvirt("run", "hello", "--trace-hash", "--trace", str(tmp_path / "t")),
    ]
    hashes = {done.stdout.splitlines()[-1] for done in runs}
    assert len(hashes) == 1
    assert re.fullmatch(r"[0-9a-f]{64}", hashes.pop())
    other = armvirt("run", "hello", "--trace-hash", "--cntfrq", "24MHz").stdout.splitlines()[-1]
    assert other != runs[0].stdout.splitlines()[-1]


def test_piped_input_reaches_the_guest() -> None:
    guest = str(
        Path(FOLDER) / "console-echo.elf"
    )  # by its path: the bundled name brings its own script
    done = armvirt("run", guest, stdin=None, input="abc\nquit\n")
    assert done.returncode == 0, done.stderr
    assert "abc" in done.stdout


def test_a_script_types(tmp_path: Path) -> None:
    script = tmp_path / "talk"
    script.write_text('expect "echo> "\nsend "over the line\\n"\nexpect "echo> "\nsend "quit\\n"\n')
    done = armvirt("run", str(Path(FOLDER) / "console-echo.elf"), "--script", str(script))
    assert done.returncode == 0, done.stderr
    assert "over the line" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    process = start("run", "hello", stdout=write)
    os.close(write)
    os.close(read)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (141, "")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    done = armvirt("run", "hello", "--trace", "/dev/full")
    assert (done.returncode, done.stderr) == (
        2,
        "armvirt: /dev/full: cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_sigterm_ends_the_run_and_its_trace_is_whole(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    process = start("run", "runaway", "--engine", engine, "--trace", str(path))
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (143, "")
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_ctrl_c_ends_the_run(engine: str) -> None:
    process = start("run", "runaway", "--engine", engine)
    assert process.stdout is not None
    assert process.stdout.readline()  # it runs
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "armvirt: interrupted\n")


def test_an_internal_error_is_one_line_and_a_traceback_on_demand() -> None:
    # A machine that cannot be made for a reason that is not the user's.
    code = (
        "import sys, armvirt.machine, armvirt.cli.main as m\n"
        "def broken(*a, **k): raise RuntimeError('out of order')\n"
        "armvirt.machine.Machine = broken\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    plain = subprocess.run(
        [sys.executable, "-c", code, "run", "hello"], capture_output=True, text=True
    )
    assert plain.returncode == 70
    assert (
        plain.stderr
        == "armvirt: internal error: RuntimeError: out of order; use --debug to see where\n"
    )
    debug = subprocess.run(
        [sys.executable, "-c", code, "run", "hello", "--debug"], capture_output=True, text=True
    )
    assert debug.returncode == 70
    assert "Traceback" in debug.stderr


FOREIGN = {
    "asyncio",
    "capstone",
    "elftools",
    "hashlib",
    "json",
    "multiprocessing",
    "rich",
    "unicorn",
}
UNUSED = (
    "armvirt.arch.load_store",
    "armvirt.board.boot.flat",
    "armvirt.board.boot.image",
    "armvirt.board.semihosting",
    "armvirt.cli.qemu",
    "armvirt.debug",
    "armvirt.hw.engine.portable",
    "armvirt.hyp.diagnosis",
    "armvirt.hyp.vgic.device.gic_v2",
    "armvirt.hyp.vgic.its.commands",
    "armvirt.hyp.vgic.its.registers",
    "armvirt.hyp.vgic.its.tables",
    "armvirt.hyp.vgic.registers.mmio_v2",
    "armvirt.intids",
    "armvirt.machine.migrate",
    "armvirt.machine.vgic_save",
    "armvirt.places",
    "armvirt.script",
    "armvirt.suite",
    "armvirt.trace",
    "armvirt.views",
)


def test_a_run_loads_nothing_that_it_does_not_use() -> None:
    """The start-up time: each module of armvirt costs 0.1 to 1 ms of about 120 ms."""
    code = "import sys; from armvirt.cli.main import main; main(['run', 'hello']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert FOREIGN.intersection(loaded) == set()
    assert [
        name for name in loaded if f"{name}.".startswith(tuple(f"{each}." for each in UNUSED))
    ] == []
    assert [name for name in UNUSED if find_spec(name) is None] == [], "renamed"


def test_no_its(tmp_path: Path) -> None:
    trees = []
    for more in ([], ["--no-its"], ["--gic", "2"]):
        path = tmp_path / f"{len(trees)}.dtb"
        assert armvirt("run", "hello", *more, "--dump-dtb", str(path)).returncode == 0
        trees.append(b"arm,gic-v3-its" in path.read_bytes())
    assert trees == [True, False, False]
    assert armvirt("run", "hello", "--no-its").returncode == 0


def _read_until(fd: int, text: bytes, seconds: float = 20) -> bytes:
    """Terminal output up to ``text``."""
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, f"{text!r} is not in {seen!r}"
        if select.select([fd], [], [], 0.1)[0]:
            seen += os.read(fd, 4096)
    return seen


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_the_terminal_as_it_was(name: str) -> None:
    keyboard, fd = pty.openpty()
    before = termios.tcgetattr(fd)
    command = [*ARMVIRT, "run", str(Path(FOLDER) / "console-echo.elf")]
    process = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=fd, start_new_session=True)
    _read_until(keyboard, b"echo> ")
    assert termios.tcgetattr(fd) != before
    process.send_signal(getattr(signal, name))
    assert process.wait(20) == 128 + getattr(signal, name)
    assert termios.tcgetattr(fd) == before
    os.close(keyboard)
    os.close(fd)


def test_a_conversation_at_a_terminal() -> None:
    keyboard, fd = pty.openpty()
    before = termios.tcgetattr(fd)
    guest = str(Path(FOLDER) / "console-echo.elf")
    process = subprocess.Popen(
        [*ARMVIRT, "run", guest], stdin=fd, stdout=fd, stderr=fd, start_new_session=True
    )
    _read_until(keyboard, b"echo> ")
    os.write(keyboard, b"hello\r")
    _read_until(keyboard, b"hello")
    os.write(keyboard, b"\x01x")
    _read_until(keyboard, b"left by Ctrl-A x")
    assert process.wait(20) == 130
    assert termios.tcgetattr(fd) == before
    os.close(keyboard)
    os.close(fd)


def test_the_version() -> None:
    from armvirt import __version__

    assert armvirt("--version").stdout == f"armvirt {__version__}\n"
