"""The guest cannot see when EL2 handled an exit: random use of a vGIC beside the same use with
extra exits."""

from __future__ import annotations

import pytest
from gic_fuzz import LawError
from gic_fuzz_exits import compare
from planting import Bug, by_name

MACHINES, STEPS = 24, 600
VGIC = "armvirt.hyp.vgic"

#: ``seed``: the machine that shows it.
BUGS = by_name((
    Bug("keeps-its-old-place", f"{VGIC}.flush:sync_owner", "sync(dist, cpu)", "pass", seed=4),
    Bug("sgi-keeps-its-old-place", f"{VGIC}.sgi:dispatch", "flush.sync_owner(dist, irq)", "pass", seed=6),
    Bug(
        "mapped-ones-first-when-full", f"{VGIC}.list_registers:by_urgency",
        "(not group_enabled(i, vmcr), i.active, i.priority)",
        "(not group_enabled(i, vmcr), i.active, i.priority, not i.hw)", seed=3,
    ),
    Bug(
        "list-registers-by-urgency", f"{VGIC}.flush:flush",
        "[irq for irq in cpu.ap_list if irq in irqs[:limit]]",
        "irqs[:limit]", seed=148,
    ),
    Bug("not-taken-back", f"{VGIC}.flush:_fell", "not _level(irq)", "False", seed=0),
    Bug("a-line-that-waits-is-not-watched", f"{VGIC}.flush:_waiting", "_waits(irq)", "False", seed=229),
    Bug("deactivated-and-sampled", f"{VGIC}.deactivation:_deactivate", "irq.line_level = False", "irq.sample_line()",
        seed=76),
))  # fmt: skip


@pytest.mark.parametrize("seed", range(MACHINES))
def test_extra_exits_change_nothing(seed: int) -> None:
    compare(seed, STEPS)


def test_interrupts_are_taken() -> None:
    assert sum(compare(seed, STEPS) for seed in range(4)) > 100


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name].plant(monkeypatch)
    with pytest.raises(LawError):
        compare(BUGS[name].seed, 2 * STEPS)
