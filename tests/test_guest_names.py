"""How the word GUEST names a file, and that a plain run loads no module that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import with_path

from armvirt.bundled import FOLDER, Guest, find, guests, parse_toml, plain_row, resolve
from armvirt.errors import UserError

MANIFEST = Path(FOLDER, "guests.toml").read_text(encoding="utf-8")
NOT_FOR_A_RUN = (
    "capstone", "dataclasses", "elftools", "fractions", "hashlib", "inspect", "json", "pathlib", "rich", "shutil",
    "threading", "tomllib", "unicorn",
)  # fmt: skip


@pytest.mark.parametrize("row", parse_toml(MANIFEST)["guest"], ids=lambda row: row["name"])
def test_plain_rows_are_read_as_the_toml_parser_reads_them(row: dict[str, object]) -> None:
    plain = all(isinstance(value, str | int) for value in row.values())
    assert plain_row(MANIFEST, str(row["name"])) == (row if plain else None)


@pytest.mark.parametrize(
    "value", ['"a\\n"', '"a" # c', "[1]", "1.5", "0x10", "'a'", '"""a"""', '"', "+1", ""]
)
def test_what_is_not_plain_is_left_to_the_toml_parser(value: str) -> None:
    assert plain_row(f'[[guest]]\nname = "a"\nkey = {value}\n', "a") is None


def test_a_bundled_guest_by_name() -> None:
    guest = find("psci4")
    assert guest == guests()["psci4"]
    assert (guest.cpus, guest.path.name) == (4, "psci4.elf")


def test_a_row_with_a_script_is_read_whole() -> None:
    scripted = [guest for guest in guests().values() if guest.script]
    assert scripted
    assert [find(guest.name) for guest in scripted] == scripted


def test_a_path_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("./hello") == Guest("hello", "./hello")
    assert find("hello.elf") == Guest("hello", "hello.elf")
    Path("hello").write_bytes(b"mine")
    assert find("hello") == Guest("hello", "hello")
    assert resolve(Path("hello")) == Path("hello")


def test_an_unknown_name_suggests_one() -> None:
    with pytest.raises(UserError, match="no bundled guest of that name; did you mean hello"):
        find("helo")


def test_a_plain_run_loads_nothing_heavy() -> None:
    """Start-up time is part of the contract; each of these modules takes 1 to 100 ms to load."""
    code = (
        "import sys; from armvirt.cli.main import main; status = main(['run', 'hello']); "
        f"print([name for name in {NOT_FOR_A_RUN} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=with_path(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
