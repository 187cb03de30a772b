"""The campaign of extra exits: a short run, and planted bugs that it finds."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from campaign import bundled
from exit_campaign import WAYS, Case, Host, Outcome, Places, View, main, run
from planting import Bug, by_name

from armvirt.bundled import Setup, guests
from armvirt.hyp.vgic import Vgic

#: A share of the campaign: guests, and the machine of each.
SHARE = [
    ("gic-fall", Setup(3, 1)), ("gic-fall", Setup(2, 2)), ("gic-latch", Setup(3, 2)), ("gic-latch", Setup(2, 1)),
    ("oneshot", Setup(3, 1)), ("ptimer", Setup(3, 1)), ("gic-ppi", Setup(3, 2)), ("gic-overflow", Setup(3, 1)),
    ("smp-timers", Setup(3, 2)), ("gic-lpi", Setup(3, 1)),
]  # fmt: skip
SMALL = Setup(3, 1)
LRS = (1, 4, 2, 16)


def outcomes(
    name: str, setup: Setup, host: Host, engine: str = "auto", places: int = 60,
    watched: tuple[bool, ...] = (False, True),
) -> list[list[str]]:  # fmt: skip
    """What differs in each of a few runs with exits, one for each of ``watched``."""
    view, found = View(), []
    plain = Case(bundled(guests()[name], setup), host, engine, 0, True)
    expected, _ = run(plain, (), view)
    for seed, watch in enumerate(watched):
        chosen = Places(places, sorted(view.moments), expected.ns, WAYS, random.Random(seed)).places
        got, exits = run(plain._replace(watched=watch), chosen, View() if watch else None)
        assert exits > places // 2
        found.append(got.differences(expected))
    return found


@pytest.mark.parametrize("vhe", [False, True], ids=["nVHE", "VHE"])
@pytest.mark.parametrize(
    ("name", "setup"), SHARE, ids=[f"{name}[{setup}]" for name, setup in SHARE]
)
def test_a_guest_does_not_notice(name: str, setup: Setup, vhe: bool) -> None:
    host = Host(vhe, LRS[(setup.cpus + setup.gic + vhe) % len(LRS)], setup.cpus)
    assert outcomes(name, setup, host) == [[], []]


@pytest.mark.parametrize("name", ["gic-latch", pytest.param("gic-fall", marks=pytest.mark.long)])
def test_nor_on_the_portable_engine(name: str) -> None:
    assert outcomes(name, SMALL, Host(False, 4, 1), "portable", places=20) == [[], []]


#: Each with the guest that shows it.
BUGS = by_name((
    Bug("a-fall-is-no-event", "armvirt.hw.pe:Pe._timer_line", "self.vif.waits(intid)", "False", "gic-fall"),
    Bug("not-taken-back", "armvirt.hyp.vgic.flush:_fell", "not _level(irq)", "False", "gic-fall"),
    Bug(
        "latched-under-hw", "armvirt.hyp.vgic.list_registers:populate", "irq.hw and not latched", "irq.hw", "gic-latch",
    ),
))  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In watched runs, in which the silicon's text is Python."""
    BUGS[name].plant(monkeypatch)
    assert any(outcomes(BUGS[name].kind, SMALL, Host(False, 4, 1), places=200, watched=(True,) * 4))


def test_moments_and_bursts() -> None:
    places = Places(50, [1000], 100_000, ["exit"], random.Random(1)).places
    times = [ns for ns, _ in places]
    assert times == sorted(set(times)) and 0 < times[0] and times[-1] < 100_000
    assert sum(990 < ns < 1100 for ns in times) > len(times) // 2
    assert any(later == ns + 1 for ns, later in pairwise(times))


def test_differences_in_words() -> None:
    one = Outcome("pass", 10, 9, "c", "f", "s")
    assert one.differences(one) == [] and one.differences(one._replace(seen="")) == []
    assert one._replace(ns=11, seen="t").differences(one) == [
        "ns 11 instead of 10",
        "seen t instead of s",
    ]


def test_the_tool(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "--guests",
        "vtimer-tick",
        "--runs",
        "2",
        "--runs-of-a-machine",
        "2",
        "--places",
        "5",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(" 0 runs differ\n")
    monkeypatch.setattr(Outcome, "differences", lambda self, other: ["ns 2 instead of 1"])
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert (
        "2 DIFFER" in out and ", lent: ns 2 instead of 1" in out and out.endswith("2 runs differ\n")
    )


@pytest.mark.parametrize("arguments", [["--guests", "nobody"], ["--ways", "never"]])
def test_mistakes(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def test_it_folds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit that is none would find nothing."""
    synced: list[int] = []
    real = Vgic.sync
    monkeypatch.setattr(Vgic, "sync", lambda self, vcpu: (synced.append(vcpu), real(self, vcpu))[1])
    plain = Case(bundled(guests()["vtimer-tick"], SMALL), Host(False, 4, 1), "auto", 0, False)
    _, exits = run(plain, [(ns, "exit") for ns in range(2_000, 2_020)])
    assert exits == 20 and len(synced) >= 20
