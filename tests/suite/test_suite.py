"""A suite: which guests it has, how they run, what it expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT

from armvirt.bundled import guests
from armvirt.cli.options import COMMANDS, DEBUG
from armvirt.errors import UserError
from armvirt.suite import toml as suite
from armvirt.suite.case import Case
from armvirt.suite.collect import collect
from armvirt.suite.toml import toml_cases


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
            "memory": 1 << 30,
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


def test_every_option_of_a_run_is_a_key() -> None:
    """An option that the command line has and a suite does not know would be an "unknown key" to
    who writes it."""
    run = next(command for command in COMMANDS if command.name == "run")
    options = {option.flag.removeprefix("--") for option in (*run.options, DEBUG)}
    assert set(suite.KEYS) == options | {"expect"}


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    section = text[text.index("# armvirt.toml") : text.index("## pytest")]
    assert [key for key in suite.KEYS if f"`{key}`" not in section] == []


#: A value of each key that stands for itself when it is read; {folder} is that of the suite.
SAMPLES: dict[str, tuple[object, str, object]] = {
    "board": ("virt", "board", "virt"),
    "gic": (2, "gic", 2),
    "no-its": (True, "its", False),
    "cpus": ("0x4", "cpus", 4),
    "mem": (512, "memory", 512 << 20),
    "cpu": ("cortex-a53", "cpu", "cortex-a53"),
    "cntfrq": (24e6, "cntfrq", 24_000_000),
    "cntvoff": (-1, "cntvoff", (1 << 64) - 1),
    "list-registers": (16, "list_registers", 16),
    "priority-bits": ("7", "priority_bits", 7),
    "pcpus": (2, "pcpus", 2),
    "quantum": ("100us", "quantum_ns", 100_000),
    "vhe": (True, "vhe", True),
    "no-skip": (True, "skip", False),
    "cpu-features": ("ecv,wfxt", "cpu_features", ("ecv", "wfxt")),
    "rtc-base": ("2024-02-29", "rtc_base", 1_709_164_800),
    "seed": ("0x10", "seed", 16),
    "no-kaslr-seed": (True, "kaslr_seed", False),
    "append": ("quiet", "append", "quiet"),
    "initrd": ("a", "initrd", "{folder}/a"),
    "dtb": ("a", "dtb", "{folder}/a"),
    "bios": ("a", "bios", "{folder}/a"),
    "symbols": ("a", "symbols", "{folder}/a"),
    "load-addr": (0x40080000, "load_addr", 0x40080000),
    "semihosting": (True, "semihosting", True),
    "script": ("a", "script", "{folder}/a"),
    "no-reboot": (True, "reboot", False),
    "engine": ("portable", "engine", "portable"),
    "max-insns": ("1M", "max_insns", 1_000_000),
    "max-time": (2, "max_time_ns", 2 * 10**9),
    "timeout": (0.5, "timeout_s", 0.5),
    "dump-dtb": ("a", "dump_dtb", "{folder}/a"),
    "trace": ("a", "trace", "{folder}/a"),
    "trace-hash": ("0" * 64, "trace_hash", "0" * 64),
    "pace": (True, "pace", True),
    "no-pace": (True, "pace", False),
    "exit-raw": (42, "exit_raw", 42),
    "debug": (True, "debug", True),
    "expect": ("fail", "expect", "fail"),
}


@pytest.mark.parametrize("key", suite.KEYS)
def test_a_key_sets_what_its_option_sets(tmp_path: Path, key: str) -> None:
    value, target, expected = SAMPLES[key]
    (case,) = toml_cases(
        write(tmp_path, f'[[guest]]\npath = "g.elf"\n{key} = {json.dumps(value)}\n')
    )
    if isinstance(expected, str):
        expected = expected.replace("{folder}", str(tmp_path))
    assert {**vars(case), **case.settings, **case.limits}[target] == expected


@pytest.mark.parametrize("key", suite.KEYS)
@pytest.mark.parametrize(
    "value", ["[]", "{ a = 1 }", "1979-05-27", '"\\u0000"', "1e400", "nan", '""', "-0.0"]
)
def test_a_value_of_the_wrong_kind_is_the_users_mistake(
    tmp_path: Path, key: str, value: str
) -> None:
    """It is read, or refused with the key's name; nothing else is raised."""
    path = write(tmp_path, f'[[guest]]\npath = "g.elf"\n{key} = {value}\n')
    try:
        toml_cases(path)
    except UserError as error:
        assert f"g.elf: {key}: " in str(error)


def test_a_run_with_every_output(tmp_path: Path) -> None:
    """trace and dump-dtb write, trace-hash and exit-raw decide."""
    path = write(
        tmp_path,
        '[[guest]]\nname = "hello"\ntrace = "t.jsonl"\ndump-dtb = "h.dtb"\ntrace-hash = true\n'
        f'[[guest]]\nname = "other"\npath = "{guests()["hello"].file}"\ntrace-hash = "{"0" * 64}"\n'
        f'[[guest]]\nname = "code"\npath = "{guests()["hello"].file}"\nexit-raw = 3\n',
    )
    first, second, third = toml_cases(path)
    machine = first.machine()
    result = first.run(machine)
    assert first.difference(result) == ""
    assert (tmp_path / "h.dtb").read_bytes() == machine.dump_dtb()
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["kind"] == "header" and len(lines) > 10
    assert (
        second.difference(second.run(second.machine()))
        == f"expected trace hash {'0' * 64}, got {result.trace_hash}"
    )
    assert third.difference(third.run(third.machine())) == "expected exit code 3, got pass"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[defaults]\ntrace = "t"\n[[guest]]\nname = "hello"\n[[guest]]\nname = "fail"',
            "by hello: trace, too",
        ),
        (
            '[[guest]]\nname = "hello"\ntrace = "t"\ndump-dtb = "./t"',
            "it is written by hello: trace, too",
        ),
        (
            '[[guest]]\nname = "hello"\nsymbols = "armvirt.toml"\ntrace = "armvirt.toml"',
            "is read by this run",
        ),
        ('[[guest]]\nname = "hello"\ntrace = "no/such/folder"', "there is no directory"),
        ('[[guest]]\nname = "hello"\ntrace = "-"', "has no standard input or output; name a file"),
        ('[[guest]]\nname = "hello"\ninitrd = "-"', "has no standard input or output; name a file"),
    ],
)
def test_files_of_a_suite_are_checked_before_anything_runs(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        collect([str(write(tmp_path, text))])


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (case,) = toml_cases(write(tmp_path, '[[guest]]\nname = "hello"\ntrace = "no/such/folder"\n'))
    with pytest.raises(UserError, match="no/such/folder: cannot be written"):
        case.run(case.machine())


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
        (
            '[[guest]]\npath = "a"\nexpect = "win"',
            r"\[\[guest\]\] a: expect: 'win' is not one of pass",
        ),
        ('[[guest]]\npath = "a"\ncpus = 0', r"cpus: CPU count 0 is outside"),
        ('[[guest]]\npath = "a"\ncpus = true', r"cpus: it must be a number"),
        ('[[guest]]\npath = "a"\nsemihosting = 1', r"semihosting: it must be true or false"),
        ('[[guest]]\npath = "a"\nappend = 1', r"append: it must be a text"),
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
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x14")
    assert [case.name for case in collect([str(tmp_path)])] == ["Image", "a", "b"]


def test_a_folder_without_guests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no guest and no armvirt\.toml"):
        collect([str(tmp_path)])


def test_a_missing_guest_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path, '[[guest]]\npath = "gone.elf"\n')
    with pytest.raises(UserError, match=r"gone\.elf: there is no such file"):
        collect([str(path)])


def test_more_cpus_than_a_bundled_guest_was_made_for_are_found_before_anything_runs(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, '[[guest]]\nname = "hello"\n[[guest]]\nname = "smp-ipi"\ncpus = 16')
    with pytest.raises(UserError, match="smp-ipi was made for 1 to 8 CPUs, not for 16"):
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
