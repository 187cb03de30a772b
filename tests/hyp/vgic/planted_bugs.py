"""Bugs to plant in the vGIC, and a campaign that has to find them.

python planted_bugs.py NAME runs the campaign on an implementation in which one line is changed, in a process of its
own: exit status 0 if a difference from the reference model or a broken law was found, 1 if not.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
STEPS = 400_000


class Bug(NamedTuple):
    """``right`` in ``module`` becomes ``wrong``; it must be there once. ``kind`` of GIC that shows it."""

    name: str
    module: str
    right: str
    wrong: str
    kind: str = "v3"


VGIC, ICH = "armvirt.hyp.vgic", "armvirt.hw.ich"
BUGS = (
    Bug("edge-keeps-latch", f"{VGIC}.lr", "irq.pending_latch = False\n            if irq.source", "if irq.source"),
    Bug("edge-latch-lost-at-fold", f"{VGIC}.lr", "irq.pending_latch or pending\n", "irq.pending_latch\n"),
    Bug("level-latch-outlives-ack", f"{VGIC}.lr", "    if taken:\n        irq.pending_latch = False\n", ""),
    Bug("no-eoi-bit-for-levels", f"{VGIC}.lr", "again = irq.level or not may_pend", "again = not may_pend"),
    Bug("group-bit-lost", f"{VGIC}.lr", "(LR_GROUP1 if irq.group else 0)", "LR_GROUP1"),
    Bug("active-first-when-full", f"{VGIC}.lr", "i.active, i.priority, not i.hw", "not i.active, i.priority, not i.hw"),
    Bug("arrival-order-when-full", f"{VGIC}.lr", "i.active, i.priority, not i.hw", "i.active, not i.hw"),
    Bug("no-npie", f"{VGIC}.lr", "hcr |= arch.HCR_NPIE if left.pending else 0", "pass"),
    Bug("no-lrenpie", f"{VGIC}.lr", "hcr |= arch.HCR_LRENPIE if left.active else 0", "pass"),
    Bug("no-trap-of-dir", f"{VGIC}.lr", "(arch.HCR_TDIR if left.active or foreign_spis else 0)", "0"),
    Bug("groups-not-watched", f"{VGIC}.lr", "if left.any or watch_groups:", "if left.any:"),
    Bug("pends-while-disabled", f"{VGIC}.entry", "return irq.enabled and bool", "return bool"),
    Bug("pends-where-it-was", f"{VGIC}.entry", " and irq.target == cpu.vcpu_id", ""),
    Bug("replay-of-any-active", f"{VGIC}.entry", "irq.active and irq.acked == cpu.vcpu_id]", "irq.active]"),
    Bug("no-replay", f"{VGIC}.entry", "ended[:count]", "ended[:0]"),
    Bug("pruned-and-forgotten", f"{VGIC}.entry", "    for irq in leaving:\n        vgic.queue(irq)\n", ""),
    Bug("disabled-is-delivered", f"{VGIC}.irq", "if irq.enabled and enables", "if enables"),
    Bug("group-enable-ignored", f"{VGIC}.irq", "enables >> irq.group & 1", "enables"),
    Bug("active-migrates", f"{VGIC}.irq",
        "return irq.vcpu if irq.vcpu is not None else irq.target",
        "return irq.target"),
    Bug("icpendr-does-nothing", f"{VGIC}.banks",
        "irq.pending_latch = False\n    if irq.mapped_level",
        "if irq.mapped_level"),
    Bug("icactiver-does-nothing", f"{VGIC}.banks", "deactivation.change_active(vgic, irq, False)", "pass"),
    Bug("priority-not-requeued", f"{VGIC}.banks",
        "irq.priority = value & PRIORITY_MASK\n    vgic.queue(irq)",
        "irq.priority = value & PRIORITY_MASK"),
    Bug("disable-not-requeued", f"{VGIC}.banks", "irq.enabled = False\n    vgic.queue(irq)", "irq.enabled = False"),
    Bug("sgi0r-for-group-1", f"{VGIC}.sgi", "(irq.group == 0 or encoding == ICC_SGI1R_EL1)", "True"),
    Bug("irm-includes-sender", f"{VGIC}.sgi", "return cpu is not sender", "return True"),
    Bug("rs-ignored", f"{VGIC}.sgi", " - request.first_aff0", ""),
    Bug("one-of-n-never-moves", f"{VGIC}.routing", "if target != irq.target:", "if False:"),
    Bug("pmr-not-strict", ICH,
        "if priority >= self.vmcr >> VMCR_VPMR_SHIFT",
        "if priority > self.vmcr >> VMCR_VPMR_SHIFT"),
    Bug("preempts-its-equal", ICH, "priority & mask < running & mask", "priority & mask <= running & mask"),
    Bug("no-preemption-groups", ICH,
        "self._mask1 = self._mask0 if value & VMCR_VCBPR else 0xFF << bpr1 & 0xFF",
        "self._mask1 = self._mask0"),
    Bug("lpi-is-active", ICH, "(LR_ACTIVE if intid < FIRST_LPI else 0)", "0"),
    Bug("eoi-keeps-priority", ICH, "registers[word] &= ~bit", "pass"),
    Bug("eoimode-ignored", ICH, "(not self.vmcr & VMCR_VEOIM or intid >= FIRST_LPI)", "True"),
    Bug("highest-target", f"{VGIC}.v2_dist",
        "(irq.targets & -irq.targets).bit_length()",
        "irq.targets.bit_length()", "v2"),
    Bug("one-sender-only", f"{VGIC}.v2_sgi", "irq.source |= senders", "irq.source = senders", "v2"),
    Bug("senders-never-leave", f"{VGIC}.lr", "irq.source &= ~first", "pass", "v2"),
    Bug("first-sender-lost", f"{VGIC}.lr", "return first.bit_length() - 1", "return 0", "v2"),
    Bug("sgi-pending-and-active", f"{VGIC}.lr",
        "again = again or bool(irq.source) or changed",
        "again = again or changed", "v2"),
    Bug("ackctl-ignored", "armvirt.hw.gicv", "group1 and not vif.vmcr & VMCR_VACKCTL", "group1", "v2"),
    Bug("fiqen-ignored", ICH, "or not vmcr & VMCR_VFIQEN", "", "v2"),
    Bug("cpendsgir-clears-all", f"{VGIC}.v2_sgi", "irq.source &= ~senders", "irq.source = 0", "v2"),
    Bug("movi-leaves-pending", f"{VGIC}.its_cmd", "lpis.move(its.vgic, event.lpi, collection.target)", "pass", "its"),
    Bug("inv-reads-nothing", f"{VGIC}.its_cmd", "lpis.invalidate(its.vgic, event.lpi)", "pass", "its"),
    Bug("clear-does-nothing", f"{VGIC}.its_cmd", "event.lpi.pending_latch = False", "pass", "its"),
    Bug("mapc-moves-nothing", f"{VGIC}.its", "lpis.move(self.vgic, event.lpi, target)", "pass", "its"),
    Bug("lpi-config-not-cached", f"{VGIC}.its",
        "lpi.pending_latch = True\n",
        "lpi.pending_latch = True; lpis.invalidate(vgic, lpi)\n", "its"),
    Bug("lpi-with-lpis-off", f"{VGIC}.its", "if not vgic.cpu(target).lpis_enabled:", "if False:", "its"),
    Bug("lpi-priority-bits", f"{VGIC}.lpi", "value & arch.LPI_PRIORITY & PRIORITY_MASK", "value", "its"),
    Bug("lpi-stays-active", ICH, "(LR_ACTIVE if intid < FIRST_LPI else 0)", "LR_ACTIVE", "its"),
)  # fmt: skip
BY_NAME = {bug.name: bug for bug in BUGS}


class _Planted(SourceFileLoader):
    def __init__(self, bug: Bug, path: str) -> None:
        super().__init__(bug.module, path)
        self._bug = bug

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        if source.count(self._bug.right) != 1:
            raise SystemExit(f"{self._bug.name}: its line is in {fullname} {source.count(self._bug.right)} times")
        return compile(source.replace(self._bug.right, self._bug.wrong), self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._bug.module:
            return None
        file = ROOT / Path(*name.split(".")).with_suffix(".py")
        return importlib.util.spec_from_file_location(name, file, loader=_Planted(self._bug, str(file)))


def main(name: str) -> int:
    bug = BY_NAME[name]
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(HERE)]
    sys.meta_path.insert(0, _Finder(bug))
    from reference_driver import campaign

    try:
        done, cases, _ = campaign(bug.kind, STEPS)
    except (AssertionError, LookupError, ValueError) as error:
        print(f"{name}: {error}")
        return 0
    print(f"{name}: not found in {done:,} steps of {cases:,} cases")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
