"""The pytest plugin, in pytest processes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from armvirt.bundled import FOLDER


def run_pytest(folder: Path, *words: str) -> tuple[int, str]:
    """pytest in ``folder`` with the plugin loaded by name, installed or not."""
    (folder / "pytest.ini").touch()
    root = str(Path(FOLDER).parent.parent)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "armvirt.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-rA",
        *words,
    ]
    environment = {**os.environ, "PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_guests_by_their_names(tmp_path: Path) -> None:
    shutil.copy(Path(FOLDER) / "hello.elf", tmp_path / "test_hello.elf")
    shutil.copy(Path(FOLDER) / "fail.elf", tmp_path / "test_fail.elf")
    shutil.copy(Path(FOLDER) / "spin.elf", tmp_path / "spin.elf")  # not by its name
    status, out = run_pytest(tmp_path)
    assert status == 1
    assert "1 failed, 1 passed" in out
    assert "test_fail: expected pass, got fail" in out
    assert "last of the console:" in out
    assert "code at the PC:" in out
    assert "pytest_plugin.py" not in out  # the guest's failure, not a Python traceback


def test_a_suite_in_the_ini_option(tmp_path: Path) -> None:
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / "armvirt.toml").write_text(
        '[[guest]]\nname = "hello"\n[[guest]]\nname = "spin"\nexpect = "stuck"\n'
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\narmvirt_guests = guests\n")
    status, out = run_pytest(tmp_path)
    assert (status, "2 passed" in out) == (0, True), out


def test_a_suite_with_a_mistake_is_a_collection_error(tmp_path: Path) -> None:
    (tmp_path / "armvirt.toml").write_text("[[guest]]\ncpu = 3\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\narmvirt_guests = .\n")
    status, out = run_pytest(tmp_path)
    assert status == 2
    assert "armvirt.toml: [[guest]] 1:" in out


def test_the_fixture_shows_the_machine_of_a_failed_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_good(machine):\n"
        "    assert machine('hello').run().verdict == 'pass'\n"
        "def test_bad(machine):\n"
        "    assert machine('fail').run().verdict == 'pass'\n"
    )
    status, out = run_pytest(tmp_path)
    assert (status, "1 failed, 1 passed" in out) == (1, True), out
    assert "armvirt machine 1" in out
    assert "VERDICT: FAIL" in out


def test_nothing_is_loaded_until_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert {m for m in sys.modules if m.startswith('armvirt.')} == {'armvirt.pytest_plugin'}\n"
    )
    assert run_pytest(tmp_path)[0] == 0
