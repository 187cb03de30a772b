"""The campaign of moves: it finds its moments, and a short run of it."""

from __future__ import annotations

import random

import migrate_campaign
import pytest
from migrate_campaign import KINDS, Moments, main

from armvirt.events import Acknowledge, EndOfInterrupt, Schedule, Stamp, TimerLine
from armvirt.machine import migrate


def seen(*events: tuple[int, int, object]) -> Moments:
    moments = Moments()
    for ns, vcpu, event in events:
        moments(Stamp(ns, 0, vcpu, 0), event)  # type: ignore[arg-type]
    return moments


def test_moments() -> None:
    """Around each rise; within a span, its end included; anywhere before the end of the run."""
    moments = seen(
        (100, 0, TimerLine("vtimer", 1)), (105, 0, Acknowledge(27)), (107, 1, Acknowledge(3)),
        (109, 0, EndOfInterrupt(27, "EOIR1")), (110, 0, TimerLine("vtimer", 0)), (120, -1, Schedule(0, "blocked")),
        (150, -1, Schedule(0, "runnable")), (160, -1, Schedule(1, "blocked")),
    )  # fmt: skip
    source = random.Random(1)
    assert moments.choose("deadline", 5, 1000, source) == [99, 100, 101]
    (active,) = moments.choose("active", 5, 1000, source)
    (wfi,) = moments.choose("wfi", 5, 1000, source)
    assert 106 <= active <= 109 and 121 <= wfi <= 150
    assert all(0 < ns < 1000 for ns in moments.choose("random", 50, 1000, source))
    assert moments.choose("wfi", 5, 100, source) == []


@pytest.mark.parametrize(
    "guests",
    [
        "vtimer-tick,ptimer,console-echo",
        "gic-sgi",
        "gic-ppi,gic-spi",
        "wfi,psci,oneshot",
        "gic-lpi,sgi-smp",
    ],
)
def test_guests_move(
    guests: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every machine that they are tested on with two CPUs at most, once at each kind of
    moment."""
    known = migrate_campaign.guests()
    names = guests.split(",")
    setups = {name: [s for s in known[name].setups if s.cpus <= 2] for name in names}
    monkeypatch.setattr(
        migrate_campaign, "subjects",
        lambda options, folder: [migrate_campaign.bundled(known[n], s) for n in names for s in setups[n]],
    )  # fmt: skip
    assert main(["--moments", "1", "--pcpus", "2"]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith("moves, 0 differ\n")


def test_a_difference_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        migrate, "differences", lambda straight, moved, tolerance: ["the console differs"]
    )
    assert main(["--guests", "hello", "--moments", "1", "--pcpus", "1", "--kinds", "random"]) == 1
    out = capsys.readouterr().out
    assert (
        "1 DIFFER" in out
        and "ns: the console differs" in out
        and out.endswith("1 moves, 1 differ\n")
    )


@pytest.mark.parametrize("arguments", [["--guests", "nobody"], ["--kinds", "never"]])
def test_mistakes(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert len(KINDS) == 4
