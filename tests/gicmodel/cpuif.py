"""The priority logic of one CPU interface: what GICC_*, GICV_* and ICC_* have in common.

Follows the *virtual* CPU interface of IHI 0069 (ICV_*; pseudocode VirtualReadIAR0/1,
VirtualWriteEOIR0/1, VPriorityDrop): the highest pending interrupt is chosen among the enabled
groups first, and a priority drop takes the highest bit of both active-priority registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .irq import IDLE_PRIORITY, NOWHERE, Irq

if TYPE_CHECKING:
    from .state import GicState


class CpuInterface:
    __slots__ = (
        "_top",
        "ackctl",
        "acked",  # (identity, group) of acknowledged and not yet ended interrupts, the newest last
        "ap",  # active priorities [group 0, group 1]; a GICv2 has the one GICH_APR: only [0] is used
        "bpr0",
        "bpr1",
        "candidates",  # enabled, pending, inactive interrupts routed here (of any group)
        "cbpr",
        "dpg",  # GICR_CTLR.DPG0/DPG1NS as a mask by group: no 1-of-N interrupts of that group here
        "eoimode",
        "fiqen",
        "fresh",  # whether `_top` is up to date
        "grpen",  # group enables of the CPU interface as a mask by group
        "masks",  # group-priority mask of a priority, by group
        "min_bpr0",
        "number",
        "pmr",
        "prio_bits",
        "running",
        "shift",
        "state",
    )

    def __init__(self, state: GicState, number: int, prio_bits: int) -> None:
        self.state = state
        self.number = number
        self.prio_bits = prio_bits
        self.shift = 8 - prio_bits  # as many preemption bits as priority bits
        self.min_bpr0 = 7 - prio_bits
        self.candidates: set[Irq] = set()
        self.fresh = False
        self._top: Irq | None = None
        self.pmr = 0
        self.bpr0 = self.min_bpr0
        self.bpr1 = self.min_bpr0 + 1
        self.cbpr = self.eoimode = self.ackctl = self.fiqen = False
        self.grpen = 0
        self.dpg = 0
        self.ap = [0, 0]
        self.running = IDLE_PRIORITY
        self.acked: list[tuple[int, int]] = []
        self.masks = (0, 0)
        self._set_masks()

    # ---- configuration

    def _set_masks(self) -> None:
        # IHI 0069 4.8.2 "Priority grouping", tables 4-9 and 4-10: BPR0 leaves bits [7:BPR0+1] as
        # group priority, BPR1 (Non-secure view, also DS=1) bits [7:BPR1]; CBPR makes Group 1 use
        # BPR0.
        low = self.bpr0 + 1
        mask0 = 0xFF << low & 0xFF
        self.masks = (mask0, mask0 if self.cbpr else 0xFF << self.bpr1 & 0xFF)

    def _regroup(self) -> None:
        before = self.masks
        self._set_masks()
        if self.masks != before and (self.ap[0] or self.ap[1]):
            # IHI 0069 4.8.2: a new binary point while interrupts are active has UNPREDICTABLE
            # effects
            self.state.note("the binary point changed while a priority is active")

    def write_bpr(self, group: int, value: int) -> None:
        """ICC_BPRn: a value below the minimum is raised to it (IHI 0069 ICC_BPR0_EL1,
        ICC_BPR1_EL1)."""
        if group:
            self.bpr1 = max(value & 7, self.min_bpr0 + 1)
        else:
            self.bpr0 = max(value & 7, self.min_bpr0)
        self._regroup()

    def set_cbpr(self, value: bool) -> None:
        self.cbpr = value
        self._regroup()

    def write_pmr(self, value: int) -> None:
        self.pmr = value & 0xFF << self.shift & 0xFF

    # ---- the highest pending interrupt

    def top(self) -> Irq | None:
        """The highest-priority pending interrupt of the enabled groups; PMR and running priority
        ignored."""
        if not self.fresh:
            enabled = self.state.grpen & self.grpen
            best: Irq | None = None
            key = IDLE_PRIORITY << 24  # IHI 0069 4.8: priority 0xFF is never signalled
            if enabled:
                for irq in self.candidates:
                    if irq.key < key and enabled >> irq.group & 1:
                        best = irq
                        key = irq.key
            self._top = best
            self.fresh = True
        return self._top

    def ties(self) -> list[Irq]:
        """All interrupts that share the priority of `top()`; the specification does not order
        them."""
        top = self.top()
        if top is None:
            return []
        enabled = self.state.grpen & self.grpen
        return [irq for irq in self.candidates if irq.prio == top.prio and enabled >> irq.group & 1]

    def choose(self, prefer: int | None) -> Irq | None:
        """`top()`, or the interrupt `prefer` if it is one of the ties."""
        top = self.top()
        if prefer is not None and top is not None and top.intid != prefer:
            for irq in self.ties():
                if irq.intid == prefer:
                    return irq
        return top

    def signalled(self, irq: Irq) -> bool:
        """Whether `irq` has sufficient priority to be signalled to the PE.

        IHI 0069 4.8.6 "Priority masking" (strictly higher than PMR) and 4.8.5 "Preemption" (the
        group priority strictly higher than the running priority).
        """
        if irq.prio >= self.pmr:
            return False
        mask = self.masks[
            irq.group
        ]  # CanSignalInterrupt cuts both sides to the candidate's group priority
        return self.running == IDLE_PRIORITY or irq.prio & mask < self.running & mask

    def asserted(self) -> int:
        """The group of the interrupt that is signalled now, NOWHERE if none."""
        top = self.top()
        return top.group if top is not None and self.signalled(top) else NOWHERE

    # ---- active priorities

    def recompute_running(self) -> None:
        active = self.ap[0] | self.ap[1]
        self.running = (
            ((active & -active).bit_length() - 1) << self.shift if active else IDLE_PRIORITY
        )

    def activate(self, irq: Irq, source: int) -> None:
        """Acknowledge `irq` (of CPU `source` for a GICv2 SGI): IHI 0069 4.1.1 "Activating an
        interrupt".

        The latch of a level-sensitive interrupt is cleared too: IHI 0048 4.3.7 and figure 4-10.
        """
        group = irq.group
        level = (irq.prio & self.masks[group]) >> self.shift
        self.ap[group if self.state.version == 3 else 0] |= 1 << level
        self.recompute_running()
        self.acked.append((irq.intid | source << 24, group))
        self.state.activate(irq, self.number, source)

    def drop(self) -> int:
        """VPriorityDrop: clear the highest active priority of both groups; the priority, 0xFF if
        none was active."""
        low0, low1 = (active & -active for active in self.ap)
        if low0 and (not low1 or low0 <= low1):
            self.ap[0] ^= low0
        else:
            self.ap[1] ^= low1
        dropped = self.running
        self.recompute_running()
        return dropped

    def write_ap(self, group: int, index: int, value: int) -> None:
        """ICC_AP<group>R<index>; registers beyond the implemented preemption levels are ignored."""
        levels = (1 << self.prio_bits) - 32 * index
        if levels <= 0:
            return
        new = (
            self.ap[group] & ~(0xFFFFFFFF << 32 * index)
            | (value & (1 << min(levels, 32)) - 1) << 32 * index
        )
        if new != self.ap[group]:
            # IHI 0069 ICC_AP0R<n>_EL1: any value but the last one read (or 0 at power-up) is
            # UNPREDICTABLE
            self.state.note("an active-priority register was written with a new value")
            self.ap[group] = new
            if not (self.ap[0] or self.ap[1]):
                self.acked.clear()
            self.recompute_running()

    def read_ap(self, group: int, index: int) -> int:
        return self.ap[group] >> 32 * index & 0xFFFFFFFF

    # ---- end of interrupt

    def end(self, intid: int, source: int, accepted: int) -> None:
        """EOIR: VirtualWriteEOIR0/1. `accepted` is the mask of the groups that the written register
        serves."""
        newest = self.acked.pop() if self.acked else (NOWHERE, 0)
        if newest[0] != intid | source << 24 or not accepted >> newest[1] & 1:
            # IHI 0069 ICC_EOIR0_EL1: it must be the INTID of the most recent valid read of the IAR
            # of that group
            self.state.note("EOI of an interrupt that is not the last one acknowledged")
        dropped = self.drop()
        if not self.eoimode:
            self._deactivate_after_drop(intid, source, accepted, dropped)

    def _deactivate_after_drop(self, intid: int, source: int, accepted: int, dropped: int) -> None:
        irq = self.state.lookup(self.number, intid)
        if irq is None or not irq.active:
            return  # an LPI has no active state, and software may have used ICACTIVER
        if irq.active_on != self.number or (intid < 16 and irq.active_source != source):
            self.state.note("EOI of an interrupt that is active elsewhere")
            return
        matches = self._matches(irq.active_prio, irq.active_group, accepted, dropped)
        if matches:  # a change of IPRIORITYR does not reach an active interrupt, which is IMPLEMENTATION DEFINED
            self.state.deactivate(irq)
        else:
            self.state.note("EOI whose group or dropped priority is not that of the interrupt")

    def _matches(self, prio: int, group: int, accepted: int, dropped: int) -> bool:
        return bool(accepted >> group & 1) and prio & self.masks[group] == dropped

    def snapshot(self) -> dict[str, object]:
        return {
            "pmr": self.pmr,
            "bpr0": self.bpr0,
            "bpr1": self.bpr1,
            "cbpr": self.cbpr,
            "eoimode": self.eoimode,
            "ackctl": self.ackctl,
            "fiqen": self.fiqen,
            "grpen": self.grpen,
            "dpg": self.dpg,
            "ap": list(self.ap),
        }
