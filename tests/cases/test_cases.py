"""Each guest here failed once. It runs on every machine that its fault concerns, and is stopped at
any instruction."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import build_firmware
import campaign
import pytest
from case_builder import CASES, HERE, build, elf_of
from command import armvirt
from conftest import require_recorded_compiler, sampled

from armvirt.machine import Machine

STOPS, SEED = 8, 9
ENGINES = ("native", "portable")
LIMIT_S, LATE_S = 1, 5.0  # that it ends is the subject; `make limits` measures how late
GICS = ("v3", "v2", "vhe", "v2-vhe")
TIMERS = ("", "ptimer")


def machine(gic: str, cpus: int = 1, append: str = "") -> dict[str, object]:
    """Arguments of `Machine`: ``gic`` is one of `GICS`."""
    return {
        "gic": 2 if "v2" in gic else 3,
        "vhe": "vhe" in gic,
        "cpus": cpus,
        "append": append,
        "memory": "64M",
    }


def passes_anywhere(
    name: str, options: dict[str, object], engines: tuple[str, ...] = ENGINES
) -> None:
    """It passes; stopped, or saved and loaded, at random places, it does the same, and so on each
    engine."""
    subject = campaign.Subject(name, elf_of(name), options=options)
    whole = campaign.whole(subject, engines[0])
    assert whole.verdict == "pass"
    for way in ("plain", "load", "fresh"):
        stops = campaign.Stops(STOPS, whole, SEED)
        assert campaign.stopped(subject, stops, way, engines[:1]) == whole, way
    assert all(campaign.whole(subject, engine) == whole for engine in engines[1:])


# -- lines and latches --


LINES = [
    (gic, f"{timer} {way}".strip(), cpus)
    for cpus in (1, 2, 8)
    for gic in GICS
    for timer in TIMERS
    for way in ("", "imask", "cval", "tval")
]


@pytest.mark.parametrize("where", sampled(LINES, 5), ids=str)
def test_a_line_that_falls_while_its_interrupt_waits(where: tuple[str, str, int]) -> None:
    gic, words, cpus = where
    passes_anywhere("line-fell", machine(gic, cpus, words))


LATCHES = [
    (gic, f"{timer} {way}".strip(), cpus)
    for cpus in (1, 4)
    for gic in GICS
    for timer in TIMERS
    for way in ("", "imask")
]


@pytest.mark.parametrize("where", sampled(LATCHES, 5), ids=str)
def test_a_latch_that_is_set_while_its_interrupt_is_active(where: tuple[str, str, int]) -> None:
    gic, words, cpus = where
    passes_anywhere("latch-while-active", machine(gic, cpus, words))


# -- other CPUs, and events --


@pytest.mark.parametrize(
    "where", sampled(((gic, cpus) for gic in GICS for cpus in range(2, 9)), 4), ids=str
)
def test_cpus_that_fault_for_ever_are_their_own_matter(where: tuple[str, int]) -> None:
    passes_anywhere("secondary-faults", machine(*where), ENGINES[:1])


@pytest.mark.long
@pytest.mark.parametrize("cpus", [2, 8])
def test_cpus_that_fault_for_ever_on_the_portable_engine(cpus: int) -> None:
    """20 ms of reading the counter take it seconds."""
    subject = campaign.Subject(
        "secondary-faults", elf_of("secondary-faults"), options=machine("v3", cpus)
    )
    assert campaign.whole(subject, "portable") == campaign.whole(subject, "native")


WAYS = ("sevl-wfe", "sevl-wfe-by-sev", "sevl-wfe-by-eret")
EVENTS = [(name, gic, cpus) for cpus in (1, 2, 4, 8) for gic in GICS for name in WAYS]


@pytest.mark.parametrize("where", sampled(EVENTS, 4), ids=str)
def test_a_wfe_that_an_event_completes(where: tuple[str, str, int]) -> None:
    name, gic, cpus = where
    passes_anywhere(name, machine(gic, cpus))


# -- the end of time --


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("gic", "cpus"), [("v3", 1), ("v3", 8), ("v2", 2), ("vhe", 1), ("v2-vhe", 4)]
)
@pytest.mark.parametrize(("name", "when"), [
    ("park", "the virtual timer fires in 9,359 years"), ("park-ptimer", "the physical timer fires in 9,359 years"),
    ("park-2-63", "the virtual timer fires in 4,679 years"),
])  # fmt: skip
def test_a_parked_timer(name: str, when: str, gic: str, cpus: int, engine: str) -> None:
    """CNTVOFF_EL2 is 0, so that both counts begin together; it is 5 instructions, and no time
    passes in WFI."""
    with Machine(elf_of(name), engine=engine, cntvoff=0, **machine(gic, cpus)) as parked:  # type: ignore[arg-type]
        result = parked.run(timeout_s=60)
    assert result.verdict == "stuck" and f"{when}, nothing else will" in str(result)
    assert result.insns == 5 and result.ns < 100_000


def command(*words: str) -> tuple[int, str, str, float]:
    """(status, output, errors, seconds) of armvirt."""
    started = time.monotonic()
    done = armvirt(*words)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


def test_a_parked_timer_at_the_command_line() -> None:
    status, _, errors, _ = command("run", str(elf_of("park")))
    assert status == 3 and "the virtual timer fires in 9,359 years, nothing else will" in errors


# -- storms --


STORMS = [
    pytest.param(name, intid, options, id=" ".join((name, *options)))
    for name, intid, options in (
        ("storm", 27, ()), ("storm", 27, ("--vhe",)), ("storm-ptimer", 30, ("--cpus", "4")),
        ("storm-v2", 27, ("--gic", "2")), ("storm-v2-ptimer", 30, ("--gic", "2", "--vhe", "--cpus", "8")),
    )
]  # fmt: skip
TAKEN = re.compile(
    r"taken ([\d,]+) times and ended ([\d,]+) times, and its line is high still, since [\d.]+ ns"
)


@pytest.mark.parametrize("engine", sampled(ENGINES, 2))
@pytest.mark.parametrize(("name", "intid", "options"), STORMS)
def test_a_storm_ends_at_its_limit_and_is_explained(
    name: str, intid: int, options: tuple[str, ...], engine: str
) -> None:
    words = (str(elf_of(name)), "--engine", engine, *options)
    status, _, errors, took = command("run", *words, "--timeout", f"{LIMIT_S}s")
    assert status == 4 and f"host time of {LIMIT_S}.0 s is over" in errors
    assert LIMIT_S <= took < LIMIT_S + LATE_S
    _, output, _, _ = command(
        "explain", *words, "--intid", str(intid), "--max-insns", "20000", "--json"
    )
    verdict = json.loads(output)["verdict"]
    counts = TAKEN.search(verdict)
    assert counts is not None, verdict
    taken, ended = (int(each.replace(",", "")) for each in counts.groups())
    assert taken > 1_000 and taken - ended in (0, 1)
    assert f"CNT{'V' if intid == 27 else 'P'}_CVAL_EL0 was not moved since" in verdict


# -- the files --


def test_every_source_is_a_case() -> None:
    sources = {path.name for suffix in ("*.c", "*.S") for path in HERE.glob(suffix)}
    assert sources == {case.source for case in CASES.values()}
    assert {path.name for path in HERE.glob("*.elf")} == {elf_of(name).name for name in CASES}


def test_rebuild_gives_the_same_bytes(tmp_path: Path) -> None:
    compiler = require_recorded_compiler()
    assert build_firmware.differences(build(compiler, tmp_path), HERE) == []
