"""Which guests a suite has, how they run, what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvirt import suite
from armvirt.bundled import guests
from armvirt.errors import UserError
from armvirt.suite import Case, collect, toml_cases


def write(folder: Path, text: str) -> Path:
    path = folder / suite.FILE
    path.write_text(text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [defaults]
        timeout = "30s"
        cpus = 2
        [[guest]]
        name = "all"
        path = "a.elf"
        cpus = 4
        mem = "1G"
        list-registers = 16
        priority-bits = 7
        cntfrq = "24MHz"
        cntvoff = -1
        append = "quiet"
        load-addr = "0x40080000"
        semihosting = true
        no-reboot = true
        no-its = true
        initrd = "rd.cpio"
        script = "talk"
        expect = "limit"
        max-insns = "1M"
        max-time = "10ms"
        [[guest]]
        path = "b.elf"
        """,
    )
    first, second = toml_cases(path)
    assert first == Case(
        "all",
        str(tmp_path / "a.elf"),
        "limit",
        {
            "cpus": 4,
            "memory": "1G",
            "list_registers": 16,
            "priority_bits": 7,
            "cntfrq": 24_000_000,
            "cntvoff": (1 << 64) - 1,
            "append": "quiet",
            "load_addr": 0x40080000,
            "semihosting": True,
            "reboot": False,
            "its": False,
            "initrd": str(tmp_path / "rd.cpio"),
        },
        str(tmp_path / "talk"),
        {"timeout_s": 30.0, "max_insns": 1_000_000, "max_time_ns": 10_000_000},
    )
    assert (second.name, second.expect, second.settings) == ("b", "pass", {"cpus": 2})


def test_every_documented_key_is_known() -> None:
    text = " ".join((suite.__doc__ or "").split())
    assert [key for key in suite.KEYS if key not in text] == []


def test_a_name_alone_is_a_bundled_guest(tmp_path: Path) -> None:
    (case,) = toml_cases(write(tmp_path, '[[guest]]\nname = "hello"\n'))
    assert (case.name, case.image) == ("hello", "hello")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[guest", "not TOML"),
        ("", r"no \[\[guest\]\] table"),
        ("guest = 3", r"no \[\[guest\]\] table"),
        ("tests = []", "unknown key 'tests' in the file"),
        ('[[guest]]\npath = "a"\nexpct = "pass"', "unknown key 'expct' in .*did you mean 'expect'"),
        ('[defaults]\npath = "a"\n[[guest]]\npath = "a"', r"unknown key 'path' in \[defaults\]"),
        ('[[guest]]\npath = "a"\nexpect = "win"', r"\[\[guest\]\] a: expect is 'win', not one of pass"),
        ('[[guest]]\npath = "a"\ncpus = 0', r"cpus: CPU count 0 is outside"),
        ('[[guest]]\npath = "a"\ncpus = true', r"cpus must be a number"),
        ('[[guest]]\npath = "a"\nsemihosting = 1', r"semihosting must be true or false"),
        ('[[guest]]\npath = "a"\nappend = 1', r"append must be a text"),
        ("[[guest]]\npath = 7", r"path must be a text"),
        ("[[guest]]\ncpus = 1", r"neither path nor name"),
        ('[[guest]]\nname = "unknown"', r"no bundled guest"),
        ('[[guest]]\npath = "a"\n[[guest]]\npath = "b/a"', r"two guests are called 'a'"),
    ],
)
def test_mistakes_name_the_file(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        toml_cases(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / suite.FILE))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_file_is_its_guests(tmp_path: Path) -> None:
    for name in ("b.elf", "a.elf", "Image", "notes.txt"):
        (tmp_path / name).touch()
    assert [case.name for case in collect([str(tmp_path)])] == ["Image", "a", "b"]


def test_a_folder_without_guests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no guest and no armvirt\.toml"):
        collect([str(tmp_path)])


def test_a_missing_guest_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path, '[[guest]]\npath = "gone.elf"\n')
    with pytest.raises(UserError, match=r"gone\.elf: there is no such file"):
        collect([str(path)])


def test_a_bundled_guest_brings_its_expectation() -> None:
    (case,) = collect(["spin"])
    assert (case.expect, case.name) == (guests()["spin"].expect, "spin")


@pytest.mark.parametrize(
    ("expect", "verdict", "accepted"),
    [
        ("pass", "pass", True),
        ("pass", "off", True),
        ("pass", "fail", False),
        ("off", "pass", False),
        ("stuck", "stuck", True),
    ],
)
def test_what_is_accepted(expect: str, verdict: str, accepted: bool) -> None:
    assert Case("x", None, expect).accepts(verdict) is accepted
