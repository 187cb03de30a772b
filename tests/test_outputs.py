"""Output files: complete or absent, and outputs that cannot be written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import ARMVIRT, armvirt

from armvirt import outputs
from armvirt.bundled import FOLDER
from armvirt.errors import UserError


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o640)
    with outputs.open_text(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    outputs.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_an_error_in_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with (
        pytest.raises(UserError, match="out: cannot be written: No space left"),
        outputs.open_text(path) as file,
    ):
        file.write("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_stream_is_kept_whatever_ends_the_run_and_a_whole_file_is_not(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), outputs.open_text(tmp_path / "stream") as file:
        file.write("so far")
        raise KeyboardInterrupt
    assert (tmp_path / "stream").read_text() == "so far"
    with pytest.raises(TypeError):
        outputs.write_bytes(tmp_path / "whole", None)  # type: ignore[arg-type]
    assert not (tmp_path / "whole").exists()


def test_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    outputs.write_bytes(path, b"data")
    assert path.read_bytes() == b"data"


def test_what_is_no_regular_file_is_written_where_it_is(tmp_path: Path) -> None:
    outputs.write_bytes("/dev/null", b"data")
    assert not Path("/dev/null").is_file()
    read, write = os.pipe()
    outputs.write_bytes(f"/dev/fd/{write}", b"data")
    assert os.read(read, 10) == b"data"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_no_output_is_an_input_or_another_output(tmp_path: Path, link: object) -> None:
    guest, other = tmp_path / "guest", tmp_path / "other"
    guest.write_bytes(b"guest")
    assert callable(link)
    link(guest, other)
    for path in (guest, other):
        with pytest.raises(UserError, match="is read by this run; name another file"):
            outputs.check({"--trace": str(path)}, [None, guest])
    new = str(tmp_path / "new")
    with pytest.raises(UserError, match="--junit .*: it is written by --trace, too"):
        outputs.check({"--trace": new, "--junit": f"{tmp_path}/./new"})
    outputs.check({"--trace": new, "--junit": None, "--dump-dtb": "-"}, [guest])


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="directory; name a file in it"):
        outputs.check({"--trace": str(tmp_path)})
    with pytest.raises(UserError, match="there is no directory"):
        outputs.check({"--trace": str(tmp_path / "none" / "t")})


# The commands


@pytest.mark.parametrize("option", ["--trace", "--dump-dtb"])
def test_the_guest_survives_being_named_as_an_output(tmp_path: Path, option: str) -> None:
    guest = tmp_path / "guest.elf"
    content = (Path(FOLDER) / "hello.elf").read_bytes()
    guest.write_bytes(content)
    done = armvirt("run", str(guest), option, str(guest))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert guest.read_bytes() == content


def test_a_report_does_not_overwrite_its_suite(tmp_path: Path) -> None:
    suite = tmp_path / "armvirt.toml"
    suite.write_text('[[guest]]\nname = "hello"\n')
    for path in (suite, Path(FOLDER) / "hello.elf"):
        done = armvirt("test", str(tmp_path), "--junit", str(path))
        assert (done.returncode, "is read by this run" in done.stderr) == (2, True)
    assert "hello" in suite.read_text()


def test_a_trace_does_not_go_where_standard_output_or_input_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as file:
        done = subprocess.run(
            [*ARMVIRT, "run", "hello", "--trace", str(out)], stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, "standard output goes there" in done.stderr) == (2, True)
    out.write_text("typed")
    with out.open() as file:
        assert armvirt("run", "hello", "--trace", str(out), stdin=file).returncode == 2
    assert out.read_text() == "typed"


def test_the_last_line_of_a_trace_says_that_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for words in (["run", "hello"], ["trace", "hello"], ["run", "runaway", "--max-insns", "100k"]):
        armvirt(*words, "--trace", str(path))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines[-1] == {"ns": lines[-2]["ns"], "kind": "end", "events": len(lines) - 2}


def test_a_limit_of_the_files_size_leaves_the_old_trace(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = armvirt("run", "vtimer-tick", "--trace", str(path), preexec_fn=limit)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "kept"), [(signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_a_signal_leaves_the_old_file_or_a_complete_one(
    tmp_path: Path, number: int, kept: bool
) -> None:
    path = tmp_path / "t"
    path.write_text("old")
    process = subprocess.Popen(
        [*ARMVIRT, "run", "runaway", "--trace", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(number)
    process.communicate(timeout=30)
    if kept:
        assert json.loads(path.read_text().splitlines()[-1])["kind"] == "end"
        assert list(tmp_path.iterdir()) == [path]
    else:
        assert path.read_text() == "old"
