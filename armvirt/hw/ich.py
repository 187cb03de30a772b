"""The virtual CPU interface of one PE: the list registers, ICH_*_EL2, and ICC_*_EL1 as EL1 accesses
them (IHI 0069 chapter 6).

EL2 writes the list registers. The interface selects the interrupt that is signalled to EL1, and
changes the interrupt's state at acknowledge, priority drop and deactivation. If a method implements
a function of the specification's pseudocode, its docstring begins with the name of that function.
`update` recomputes the three outputs after every change: virq (group 1), vfiq (group 0, if VFIQEn)
and the maintenance interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from armvirt.arch import gic as arch
from armvirt.arch.bits import MASK32, shift_of
from armvirt.arch.gic import (
    FIRST_LPI,
    FIRST_SPECIAL,
    ICC_REGISTERS,
    ICH_HCR_EN,
    ICH_HCR_EOICOUNT_MASK,
    ICH_HCR_EOICOUNT_SHIFT,
    ICH_HCR_MAINTENANCE_ENABLES,
    ICH_REGISTERS,
    IDLE_PRIORITY,
    INTID_MASK,
    LAST_SPECIAL,
    LR_ACTIVE,
    LR_EOI,
    LR_GROUP1,
    LR_GROUP_SHIFT,
    LR_HW,
    LR_PENDING,
    LR_PINTID_MASK,
    LR_PINTID_SHIFT,
    LR_PRIORITY_MASK,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    LR_STATE_SHIFT,
    SPURIOUS,
    VINTID_MASK,
    VMCR_BPR_MASK,
    VMCR_FLAGS,
    VMCR_LEGACY_FLAGS,
    VMCR_PMR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VCBPR,
    VMCR_VENG0,
    VMCR_VENG1,
    VMCR_VEOIM,
    VMCR_VFIQEN,
    VMCR_VPMR_SHIFT,
    running_priority,
)
from armvirt.events import Acknowledge, EndOfInterrupt, EventBus, IccWrite
from armvirt.hw.gic import PhysicalGic
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1


class IccAction(Enum):
    """How an MRS or MSR of an ICC_*_EL1 register ends: the access completes (DONE), is UNDEFINED at
    EL1 (UNDEF), or traps to EL2 with EC 0x18 (TRAP)."""

    DONE = "done"
    UNDEF = "undef"
    TRAP = "trap"


class IccOutcome(NamedTuple):
    """The result of an MRS or MSR of an ICC_*_EL1 register. ``value`` is the value that a completed
    MRS reads."""

    action: IccAction
    value: int = 0


_outcome = tuple.__new__  # the same as IccOutcome(...), without a Python call
_DONE = IccOutcome(IccAction.DONE)
_UNDEF = IccOutcome(IccAction.UNDEF)
_TRAP = IccOutcome(IccAction.TRAP)


class VirtualCpuInterface:
    """The virtual CPU interface of PE number ``cpu``: the state of the ICH_*_EL2 registers, and the
    behaviour of the ICV_* registers.

    ``list_registers`` is 1 to 16. ``prebits`` is the number of preemption bits, 5 to 7. The number
    of priority bits is the same. The deactivation of a list register with HW = 1 deactivates the
    physical interrupt in ``gic``. If ``on_change`` is set, it is called when `update` changes an
    output.

    ``sre`` is ICC_SRE_EL1.SRE. EL2 must set ``sre`` before it writes ICH_VMCR_EL2. ``sre`` is False
    for a GICv2 guest, which uses the frame of `armvirt.hw.gicv` instead of the system registers
    (IHI 0069 chapter 10). Each method that changes the state sets ``changed``; `armvirt.hw.shadow`
    clears the flag when it copies the state.
    """

    __slots__ = (
        "_candidate", "_deactivate", "_level_shift", "_lr_hw", "_lr_software", "_mask0", "_mask1",
        "_min_bpr0", "_min_bpr1", "_priority_mask", "_signalled", "ap0r", "ap1r", "bus", "changed", "cpu", "hcr", "lr",
        "maintenance", "on_change", "prebits", "sre", "vfiq", "virq", "vmcr", "waiting",
    )  # fmt: skip

    def __init__(
        self, cpu: int, gic: PhysicalGic, bus: EventBus, list_registers: int = 4, prebits: int = 5
    ) -> None:
        registers, bits = arch.MAX_LIST_REGISTERS, (arch.MIN_PRIORITY_BITS, arch.MAX_PRIORITY_BITS)
        if not 1 <= list_registers <= registers or not bits[0] <= prebits <= bits[1]:
            raise ValueError(
                "a virtual CPU interface has 1 to 16 list registers and 5 to 7 preemption bits"
            )
        self.cpu, self.prebits = cpu, prebits
        self.bus, self._deactivate = bus, gic.deactivate
        self._min_bpr0, self._min_bpr1 = arch.minimum_bpr(prebits, 0), arch.minimum_bpr(prebits, 1)
        self._priority_mask = arch.implemented_priority(prebits)
        self._level_shift = shift_of(self._priority_mask)
        # The writable bits of a list register: pINTID only with HW = 1, EOI only with HW = 0.
        common = (
            VINTID_MASK | self._priority_mask << LR_PRIORITY_SHIFT | LR_GROUP1 | LR_HW | LR_STATE
        )
        self._lr_hw, self._lr_software = common | LR_PINTID_MASK << LR_PINTID_SHIFT, common | LR_EOI
        self.lr = [0] * list_registers
        self.on_change: Callable[[], None] | None = None
        self.virq = self.vfiq = self.maintenance = False
        self.hcr = self.vmcr = 0
        self.waiting = 0
        self.sre = self.changed = True
        self._set_vmcr(0)
        self.ap0r = [0] * arch.active_priority_registers(prebits)
        self.ap1r = [0] * arch.active_priority_registers(prebits)
        self._candidate, self._signalled = -1, False

    def reset(self) -> None:
        """Warm reset: disable the interface, free all list registers, and clear all active
        priorities."""
        self.hcr = self.waiting = 0
        self.sre = True
        self._set_vmcr(0)
        self.lr[:] = [0] * len(self.lr)
        self.ap0r[:] = [0] * len(self.ap0r)
        self.ap1r[:] = [0] * len(self.ap1r)
        self.update()

    # EL2's side ----------------------------------------------------------------------------------

    def program(self, hcr: int, list_registers: Sequence[int], waiting: int = 0) -> None:
        """Write ICH_HCR_EL2 and all list registers. EL2 calls this method before a guest entry, and
        when it disables the interface.

        ``hcr`` is the value of ICH_HCR_EL2. ``list_registers`` has the values of the first list
        registers, from ICH_LR0_EL2 on. The list registers after these become 0.

        ``waiting`` is a bit mask without a counterpart in an Arm CPU. Bit n stands for the physical
        interrupt with INTID n. EL2 sets bit n if this interrupt is pending for the guest but is in
        no list register; see `waits`.
        """
        self.hcr, self.waiting = hcr & arch.ICH_HCR_WRITABLE, waiting
        hw, software = self._lr_hw, self._lr_software
        lrs = [value & (hw if value & LR_HW else software) for value in list_registers]
        self.lr[:] = lrs + [0] * (len(self.lr) - len(lrs))
        self.update()

    def restore(self, vmcr: int, ap0r: Sequence[int], ap1r: Sequence[int]) -> None:
        """Write ICH_VMCR_EL2 and the active-priority registers. EL2 calls this method when it loads
        a vCPU."""
        self._set_vmcr(vmcr)
        self.ap0r[:] = ap0r[: len(self.ap0r)]
        self.ap1r[:] = ap1r[: len(self.ap1r)]
        self.update()

    def set_registers(
        self, hcr: int, vmcr: int, lr: Sequence[int], ap0r: Sequence[int], ap1r: Sequence[int]
    ) -> None:
        """Set the registers to the values of their shadow copies, after EL1 has changed the shadow
        copies (`armvirt.hw.shadow`)."""
        self.hcr, self.vmcr = (
            hcr,
            vmcr,
        )  # EL1 can have changed only VPMR, not the binary points
        self.lr[:], self.ap0r[:], self.ap1r[:] = lr, ap0r, ap1r
        self.update()

    def end(self, index: int) -> None:
        """Set the state of a list register to inactive, as the guest's end of interrupt does.
        ``index`` is the number of the list register. The physical interrupt does not change."""
        self.lr[index] &= ~LR_STATE
        self.update()

    def waits(self, pintid: int) -> bool:
        """Return whether a physical interrupt is pending for the guest. ``pintid`` is its INTID.
        The interrupt is pending in a list register, or it is in no list register and EL2 has set
        its bit in ``waiting`` of `program`."""
        if self.waiting >> pintid & 1:
            return True
        wanted = LR_HW | LR_PENDING | pintid << LR_PINTID_SHIFT
        mask = LR_HW | LR_STATE | LR_PINTID_MASK << LR_PINTID_SHIFT
        return any(lr & mask == wanted for lr in self.lr)

    @property
    def group_masks(self) -> tuple[int, int]:
        """The bits of a priority that form the group priority, for group 0 and for group 1."""
        return self._mask0, self._mask1

    def read_ich(self, encoding: int) -> int:
        """Read an ICH_*_EL2 register (MRS). ``encoding`` is the packed encoding of the register.
        Raises KeyError if the register is not implemented."""
        kind, index = _ICH[encoding]
        if kind in ("lr", "ap0r", "ap1r"):
            registers: list[int] = getattr(self, kind)
            if index >= len(registers):
                raise KeyError(encoding)
            return registers[index]
        value = getattr(self, kind)
        assert isinstance(value, int)
        return value

    def write_ich(self, encoding: int, value: int) -> None:
        """Write ``value`` to an ICH_*_EL2 register (MSR). ``encoding`` is the packed encoding of
        the register. Raises KeyError if the register is not implemented or is read-only."""
        kind, index = _ICH[encoding]
        if kind == "hcr":
            self.hcr = value & arch.ICH_HCR_WRITABLE
        elif kind == "vmcr":
            self._set_vmcr(value)
        elif kind in ("lr", "ap0r", "ap1r"):
            registers: list[int] = getattr(self, kind)
            if index >= len(registers):
                raise KeyError(encoding)
            mask = (self._lr_hw if value & LR_HW else self._lr_software) if kind == "lr" else MASK32
            registers[index] = value & mask
        else:
            raise KeyError(encoding)
        self.update()

    @property
    def vtr(self) -> int:
        """ICH_VTR_EL2: the numbers of list registers, preemption bits and priority bits. INTIDs
        have 16 bits.

        ICH_HCR_EL2.TDIR is implemented (TDS = 1). Direct injection of virtual interrupts is not
        implemented (nV4 = 1), because this is a GICv3.
        """
        bits, features = self.prebits - 1, arch.VTR_TDS | arch.VTR_NV4 | arch.VTR_A3V
        return (
            len(self.lr) - 1
            | features
            | bits << arch.VTR_PREBITS_SHIFT
            | bits << arch.VTR_PRIBITS_SHIFT
        )

    @property
    def eisr(self) -> int:
        """ICH_EISR_EL2. Bit n is 1 if list register n requests an EOI maintenance interrupt."""
        return sum(
            1 << n for n, lr in enumerate(self.lr) if lr & (LR_STATE | LR_HW | LR_EOI) == LR_EOI
        )

    @property
    def elrsr(self) -> int:
        """ICH_ELRSR_EL2. Bit n is 1 if list register n is free. A list register that requests an
        EOI maintenance interrupt is not free."""
        return sum(
            1 << n
            for n, lr in enumerate(self.lr)
            if not lr & LR_STATE and (lr & LR_HW or not lr & LR_EOI)
        )

    @property
    def misr(self) -> int:
        """ICH_MISR_EL2: the reasons for which the maintenance interrupt is asserted."""
        hcr, vmcr = self.hcr, self.vmcr
        in_use = sum(1 for lr in self.lr if lr & LR_STATE)
        pending = any(lr & LR_STATE == LR_PENDING for lr in self.lr)
        causes = (
            (self.eisr != 0, arch.MISR_EOI),
            (hcr & arch.ICH_HCR_UIE and in_use <= 1, arch.MISR_U),
            (hcr & arch.ICH_HCR_LRENPIE and hcr >> ICH_HCR_EOICOUNT_SHIFT, arch.MISR_LRENP),
            (hcr & arch.ICH_HCR_NPIE and not pending, arch.MISR_NP),
            (hcr & arch.ICH_HCR_VGRP0EIE and vmcr & VMCR_VENG0, arch.MISR_VGRP0E),
            (hcr & arch.ICH_HCR_VGRP0DIE and not vmcr & VMCR_VENG0, arch.MISR_VGRP0D),
            (hcr & arch.ICH_HCR_VGRP1EIE and vmcr & VMCR_VENG1, arch.MISR_VGRP1E),
            (hcr & arch.ICH_HCR_VGRP1DIE and not vmcr & VMCR_VENG1, arch.MISR_VGRP1D),
        )
        return sum(bit for cause, bit in causes if cause)

    @property
    def priority_mask(self) -> int:
        """ICH_VMCR_EL2.VPMR. Only interrupts with a lower priority value are signalled."""
        return self.vmcr >> VMCR_VPMR_SHIFT

    # Outputs -------------------------------------------------------------------------------------

    def update(self) -> None:
        """Recompute the highest-priority pending interrupt and the three outputs. Every method that
        changes the state calls `update` at its end."""
        self.changed = True
        vmcr, hcr = self.vmcr, self.hcr
        best, best_priority, eoi = -1, IDLE_PRIORITY, False
        for index, lr in enumerate(self.lr):
            if not lr:
                continue
            state = lr >> LR_STATE_SHIFT
            if state == 1:
                priority = lr >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK
                if priority < best_priority and vmcr & (
                    VMCR_VENG1 if lr & LR_GROUP1 else VMCR_VENG0
                ):
                    best, best_priority = index, priority
            elif not state and lr & LR_EOI and not lr & LR_HW:
                eoi = True
        self._candidate = best
        self._signalled = signalled = (
            best >= 0 and bool(hcr & ICH_HCR_EN) and self._can_signal(best)
        )
        irq = signalled and (self.lr[best] & LR_GROUP1 != 0 or not vmcr & VMCR_VFIQEN)
        maintenance = bool(hcr & ICH_HCR_EN) and (
            eoi or (hcr & ICH_HCR_MAINTENANCE_ENABLES != 0 and self.misr != 0)
        )
        self._drive(irq, signalled and not irq, maintenance)

    def _drive(self, virq: bool, vfiq: bool, maintenance: bool) -> None:
        if virq != self.virq or vfiq != self.vfiq or maintenance != self.maintenance:
            self.virq, self.vfiq, self.maintenance = virq, vfiq, maintenance
            if self.on_change is not None:
                self.on_change()

    def _can_signal(self, index: int) -> bool:
        """CanSignalVirtualInterrupt: return whether the interrupt in a list register can be
        signalled. ``index`` is the number of the list register. The priority of the interrupt must
        be higher than VPMR. Its group priority must be higher than the running priority.

        For the second comparison, both priorities are reduced to the bits of the group priority.
        QEMU does the same in icv_hppi_can_preempt. KVM's emulation reduces only the priority of the
        pending interrupt. The results differ if the guest raises the binary point while an
        interrupt is active. With KVM, a pending interrupt of the same priority can then preempt the
        active interrupt.
        """
        lr = self.lr[index]
        priority = lr >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK
        if priority >= self.vmcr >> VMCR_VPMR_SHIFT:
            return False
        running = running_priority(self.ap0r, self.ap1r, self.prebits)
        mask = self._mask1 if lr & LR_GROUP1 else self._mask0
        return running == IDLE_PRIORITY or priority & mask < running & mask

    def running_priority(self) -> int:
        """The running priority: the lowest active priority value of both groups, or 0xFF if no
        priority is active."""
        return running_priority(self.ap0r, self.ap1r, self.prebits)

    def preemption_level(self, priority: int, group: int) -> int:
        """The number of the bit in the active-priority registers that is set when an interrupt with
        this priority and group is acknowledged."""
        return (priority & (self._mask1 if group else self._mask0)) >> self._level_shift

    # EL1's side ----------------------------------------------------------------------------------

    @property
    def candidate(self) -> int:
        """The index of the list register with the highest-priority pending interrupt of an enabled
        group, or -1 if no such interrupt is pending."""
        return self._candidate

    @property
    def signalled(self) -> int:
        """The index of the list register whose interrupt is signalled to the PE, or -1 if no
        interrupt is signalled."""
        return self._candidate if self._signalled else -1

    def icc_access(
        self, encoding: int, is_write: bool, value: int, el: int, imo: bool, fmo: bool
    ) -> IccOutcome:
        """Execute an MRS or MSR of a GIC CPU interface register. ``el`` is the exception level of
        the access. ``imo`` is HCR_EL2.IMO, and ``fmo`` is HCR_EL2.FMO.

        The access is UNDEFINED in each of these cases:

        * The access is at EL0.
        * The register is unknown, or is a register of EL2 or EL3.
        * The access is an MSR of a read-only register or an MRS of a write-only register.
        * SRE is 0. (Hardware would trap an access to ICC_SRE_EL1, because ICC_SRE_EL2.Enable is 0.
          KVM then injects an UNDEFINED exception into a guest without a GICv3, in access_gic_sre.)
        * Neither IMO nor FMO makes the access virtual. Hardware would access the physical
          interface, which the hypervisor never gives to a guest.
        """
        row = _ICC.get(encoding)
        if row is None or el == 0 or not self.sre:
            return _UNDEF
        handler: Callable[..., int | None] | None = row.write if is_write else row.read
        if handler is None or row.number >= len(self.ap0r) or not row.routed & (imo << 1 | fmo):
            return _UNDEF
        if row.always_traps or self.hcr & row.traps:
            return _TRAP
        if is_write:
            if (
                self.bus.active and row.read is not None
            ):  # a readable register is a control register; EOIR and DIR are write-only
                self.bus.emit(IccWrite(row.name, value))
            handler(self, value)
            return _DONE
        return _outcome(IccOutcome, (IccAction.DONE, handler(self) or 0))

    def _read_iar(self, group: int) -> int:
        """VirtualReadIAR: the signalled interrupt of ``group`` becomes active, and its priority
        becomes the running priority. Returns the INTID, or 1023 if no interrupt of ``group`` is
        signalled."""
        intid = self._acknowledge(group)
        if self.bus.active:
            self.bus.emit(Acknowledge(intid))
        return intid

    def _acknowledge(self, group: int) -> int:
        index = self._candidate
        if not self._signalled or self.lr[index] >> LR_GROUP_SHIFT & 1 != group:
            return SPURIOUS
        return self.activate(index)

    def activate(self, index: int) -> int:
        """Acknowledge the interrupt in a list register. ``index`` is the number of the list
        register. The interrupt must be the one that is signalled. Returns the vINTID, with the
        CPUID for an SGI of a GICv2 guest.

        With SRE = 0 the active priorities of both groups are in ICH_AP1R<n>_EL2 (IHI 0069,
        GICV_APR<n>).
        """
        lr = self.lr[index]
        intid = lr & VINTID_MASK
        if (
            FIRST_SPECIAL <= intid <= LAST_SPECIAL
        ):  # a special INTID cannot be active, but is returned
            self.lr[index] = lr & ~LR_PENDING
            self.update()
            return intid
        # LPIs have no active state (IHI 0069 4.1.2), only an active priority.
        self.lr[index] = lr & ~LR_PENDING | (LR_ACTIVE if intid < FIRST_LPI else 0)
        group1 = lr & LR_GROUP1
        mask, registers = (
            self._mask1 if group1 else self._mask0,
            self.ap1r if group1 or not self.sre else self.ap0r,
        )
        level = (lr >> LR_PRIORITY_SHIFT & mask) >> self._level_shift
        registers[level >> 5] |= 1 << (level & 31)
        self.update()
        return intid

    def _read_hppir(self, group: int) -> int:
        """Read ICC_HPPIR<group>_EL1: return the highest-priority pending interrupt of an enabled
        group. The priority mask and the running priority do not affect the result. Returns 1023 if
        no interrupt is pending, or if the interrupt is in the other group."""
        index = self._candidate
        if index < 0 or self.lr[index] >> LR_GROUP_SHIFT & 1 != group:
            return SPURIOUS
        return self.lr[index] & VINTID_MASK

    def _write_eoir(self, group: int, value: int) -> None:
        """VirtualWriteEOIR (IHI 0069 12.2.10): drop the priority. With EOImode 0 also deactivate
        the interrupt.

        The priority drops for every INTID that the interface can have (VirtualIdentifierValid). A
        write of any other INTID is ignored. If no priority was active, the write has no effect. In
        this case the architecture permits EOIcount to be incremented or not (CONSTRAINED
        UNPREDICTABLE, ICH_HCR_EL2.EOIcount). armvirt does not increment EOIcount, because the
        hypervisor would then deactivate an interrupt that the guest did not end.
        """
        intid = value & INTID_MASK
        if FIRST_SPECIAL <= intid <= LAST_SPECIAL or intid > VINTID_MASK:
            return
        if self.bus.active:
            self.bus.emit(EndOfInterrupt(intid, "EOIR1" if group else "EOIR0"))
        dropped = self.drop_priority()
        if dropped != IDLE_PRIORITY and (not self.vmcr & VMCR_VEOIM or intid >= FIRST_LPI):
            self._end(intid, group, dropped)
        self.update()

    def _end(self, intid: int, group: int, dropped: int) -> None:
        """Deactivate an interrupt after a write of EOIR. ``intid`` is its vINTID. ``group`` is 0
        for EOIR0 and 1 for EOIR1. ``dropped`` is the group priority that the write has dropped. The
        interrupt is deactivated only if its list register has the same group and the same group
        priority. If no list register has the interrupt, increment EOIcount. EOIcount is not
        incremented for an LPI.

        `_write_eoir` calls this method if EOImode is 0. For an LPI it calls this method in both
        modes, because a guest does not deactivate an LPI separately.
        """
        index = self.find_active(intid)
        if index < 0:
            if intid < FIRST_LPI:
                self.count_eoi()
            return
        lr = self.lr[index]
        mask = self._mask1 if group else self._mask0
        if lr >> LR_GROUP_SHIFT & 1 == group and lr >> LR_PRIORITY_SHIFT & mask == dropped:
            self.deactivate_lr(index)

    def _write_dir(self, value: int) -> None:
        """VirtualWriteDIR (IHI 0069 12.2.7): deactivate an interrupt. If EOImode is 0, the write is
        ignored."""
        intid = value & INTID_MASK
        if not self.vmcr & VMCR_VEOIM or intid >= FIRST_SPECIAL:
            return
        if self.bus.active:
            self.bus.emit(EndOfInterrupt(intid, "DIR"))
        index = self.find_active(intid)
        if index < 0:
            self.count_eoi()
        else:
            self.deactivate_lr(index)
        self.update()

    def find_active(self, intid: int) -> int:
        """Return the number of the list register in which an interrupt is active, or -1 if there is
        none. ``intid`` is the vINTID of the interrupt."""
        for index, lr in enumerate(self.lr):
            if lr & LR_ACTIVE and lr & VINTID_MASK == intid:
                return index
        return -1

    def deactivate_lr(self, index: int) -> None:
        """Deactivate the interrupt in a list register and, with HW = 1, its physical interrupt.
        ``index`` is the number of the list register. The caller must call `update` afterwards."""
        lr = self.lr[index]
        self.lr[index] = lr & ~LR_ACTIVE
        if lr & LR_HW:
            self._deactivate(self.cpu, lr >> LR_PINTID_SHIFT & LR_PINTID_MASK)

    def count_eoi(self) -> None:
        """Increment EOIcount, because the guest has ended an interrupt that is in no list register.
        EL2 must then deactivate this interrupt."""
        count = (self.hcr >> ICH_HCR_EOICOUNT_SHIFT) + 1 & ICH_HCR_EOICOUNT_MASK
        self.hcr = (
            self.hcr & ~(ICH_HCR_EOICOUNT_MASK << ICH_HCR_EOICOUNT_SHIFT)
            | count << ICH_HCR_EOICOUNT_SHIFT
        )

    def drop_priority(self) -> int:
        """PriorityDrop: clear the highest active priority. Returns this priority, or 0xFF if no
        priority was active.

        If both groups are active at the same priority (an error of the guest), group 0 is cleared
        first.
        """
        priority = running_priority(self.ap0r, self.ap1r, self.prebits)
        if priority != IDLE_PRIORITY:
            level = priority >> self._level_shift
            word, bit = level >> 5, 1 << (level & 31)
            registers = self.ap0r if self.ap0r[word] & bit else self.ap1r
            registers[word] &= ~bit
        return priority

    # Control registers, which are views of ICH_VMCR_EL2 ------------------------------------------

    def _set_vmcr(self, value: int) -> None:
        """Write ICH_VMCR_EL2. A binary point below its minimum is raised to the minimum. With SRE =
        1 VFIQEn is RES1 and VAckCtl is RES0."""
        bpr0 = max(value >> VMCR_VBPR0_SHIFT & VMCR_BPR_MASK, self._min_bpr0)
        bpr1 = max(value >> VMCR_VBPR1_SHIFT & VMCR_BPR_MASK, self._min_bpr1)
        pmr = value >> VMCR_VPMR_SHIFT & self._priority_mask
        self.vmcr = (
            value & VMCR_FLAGS
            | (VMCR_VFIQEN if self.sre else value & VMCR_LEGACY_FLAGS)
            | bpr0 << VMCR_VBPR0_SHIFT
            | bpr1 << VMCR_VBPR1_SHIFT
            | pmr << VMCR_VPMR_SHIFT
        )
        group0, group1 = arch.GROUP_MASKS
        self._mask0 = group0[bpr0]
        self._mask1 = self._mask0 if value & VMCR_VCBPR else group1[bpr1]

    def put_field(self, shift: int, mask: int, value: int) -> None:
        """Write one field of ICH_VMCR_EL2. The bits of the field are ``mask`` << ``shift``."""
        self._set_vmcr(self.vmcr & ~(mask << shift) | (value & mask) << shift)
        self.update()

    def _read_pmr(self) -> int:
        return self.vmcr >> VMCR_VPMR_SHIFT

    def _write_pmr(self, value: int) -> None:
        self.put_field(VMCR_VPMR_SHIFT, VMCR_PMR_MASK, value)

    def _read_bpr(self, group: int) -> int:
        return arch.read_bpr(self.vmcr, self.prebits, group)

    def _write_bpr(self, group: int, value: int) -> None:
        if not group:
            self.put_field(VMCR_VBPR0_SHIFT, VMCR_BPR_MASK, value)
        elif not self.vmcr & VMCR_VCBPR:
            self.put_field(VMCR_VBPR1_SHIFT, VMCR_BPR_MASK, value)

    def _read_igrpen(self, group: int) -> int:
        return self.vmcr >> group & 1

    def _write_igrpen(self, group: int, value: int) -> None:
        self.put_field(group, 1, value)

    def _read_ctlr(self) -> int:
        value = arch.CTLR_RSS | arch.CTLR_A3V | self.prebits - 1 << arch.CTLR_PRIBITS_SHIFT
        value |= arch.CTLR_CBPR if self.vmcr & VMCR_VCBPR else 0
        return value | (arch.CTLR_EOIMODE if self.vmcr & VMCR_VEOIM else 0)

    def _write_ctlr(self, value: int) -> None:
        vmcr = self.vmcr & ~(VMCR_VCBPR | VMCR_VEOIM)
        vmcr |= (VMCR_VCBPR if value & arch.CTLR_CBPR else 0) | (
            VMCR_VEOIM if value & arch.CTLR_EOIMODE else 0
        )
        self._set_vmcr(vmcr)
        self.update()

    def _read_apr(self, group: int, index: int) -> int:
        return (self.ap1r if group else self.ap0r)[index]

    def _write_apr(self, group: int, index: int, value: int) -> None:
        (self.ap1r if group else self.ap0r)[index] = value & MASK32
        self.update()

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """The list registers whose value is not 0, as plain data for a table."""
        return [
            {"cpu": self.cpu, "lr": n, "value": lr, **arch.ListRegister.decode(lr)._asdict()}
            for n, lr in enumerate(self.lr)
            if lr
        ]

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION,
            "sre": self.sre,
            "hcr": self.hcr,
            "vmcr": self.vmcr,
            "lr": list(self.lr),
            "ap0r": list(self.ap0r),
            "ap1r": list(self.ap1r),
            "waiting": self.waiting,
        }

    def load(self, state: State) -> None:
        """Restore the state from a dict that `state` returned. Raises ValueError if the dict has
        another number of list registers or active-priority registers. ``on_change`` is called if an
        output changes."""
        checked(state, "VirtualCpuInterface", STATE_VERSION)
        hcr, vmcr = state["hcr"], state["vmcr"]
        lr, ap0r, ap1r = state["lr"], state["ap0r"], state["ap1r"]
        assert isinstance(hcr, int) and isinstance(vmcr, int)
        assert isinstance(lr, list) and isinstance(ap0r, list) and isinstance(ap1r, list)
        if len(lr) != len(self.lr) or len(ap0r) != len(self.ap0r):
            raise ValueError("saved state is of a virtual CPU interface of another shape")
        self.sre, self.waiting = bool(state["sre"]), int(state["waiting"])
        self.hcr, self.lr[:], self.ap0r[:], self.ap1r[:] = hcr, lr, ap0r, ap1r
        self._set_vmcr(vmcr)
        self.update()


# Bindings ---------------------------------------------------------------------------------------

_FMO, _IMO = 1, 2
_EITHER = _FMO | _IMO


class _IccRow(NamedTuple):
    """The behaviour of one ICC_*_EL1 register. ``routed`` has the bits of HCR_EL2 (FMO, IMO) that
    make an access virtual; one set bit is sufficient. ``traps`` has the bits of ICH_HCR_EL2 that
    trap an access to EL2. ``read`` is None if the register is write-only. ``write`` is None if the
    register is read-only."""

    name: str
    routed: int
    traps: int
    read: Callable[[VirtualCpuInterface], int] | None = None
    write: Callable[[VirtualCpuInterface, int], None] | None = None
    always_traps: bool = False
    number: int = 0  # n of ICC_AP<group>R<n>_EL1; an unimplemented n is UNDEFINED


def _nothing(vif: VirtualCpuInterface, value: int) -> None:
    """Ignore a write of a register. For ICC_SRE_EL1 all writable bits are RAO/WI. For the SGI
    registers this function is never called, because every access traps to EL2."""


def _common_rows() -> list[_IccRow]:
    """Return the rows of the registers that belong to no group. An access to such a register is
    virtual if IMO or FMO is set (IHI 0069 6.1.2)."""
    v = VirtualCpuInterface
    return [
        _IccRow("ICC_PMR_EL1", _EITHER, arch.ICH_HCR_TC, v._read_pmr, v._write_pmr),
        _IccRow("ICC_RPR_EL1", _EITHER, arch.ICH_HCR_TC, v.running_priority),
        _IccRow("ICC_CTLR_EL1", _EITHER, arch.ICH_HCR_TC, v._read_ctlr, v._write_ctlr),
        _IccRow("ICC_DIR_EL1", _EITHER, arch.ICH_HCR_TC | arch.ICH_HCR_TDIR, None, v._write_dir),
        _IccRow("ICC_SGI1R_EL1", _EITHER, 0, None, _nothing, always_traps=True),
        _IccRow("ICC_ASGI1R_EL1", _EITHER, 0, None, _nothing, always_traps=True),
        _IccRow("ICC_SGI0R_EL1", _EITHER, 0, None, _nothing, always_traps=True),
        _IccRow("ICC_SRE_EL1", _EITHER, 0, lambda _: arch.SRE_ALL, _nothing),
    ]


def _group_rows(group: int) -> list[_IccRow]:
    v = VirtualCpuInterface
    routed, traps = (_IMO, arch.ICH_HCR_TALL1) if group else (_FMO, arch.ICH_HCR_TALL0)

    def row(
        name: str,
        read: Callable[[VirtualCpuInterface], int] | None,
        write: Callable[[VirtualCpuInterface, int], None] | None,
    ) -> _IccRow:
        return _IccRow(f"ICC_{name}_EL1", routed, traps, read, write)

    rows = [
        row(f"IAR{group}", lambda s: v._read_iar(s, group), None),
        row(f"EOIR{group}", None, lambda s, value: v._write_eoir(s, group, value)),
        row(f"HPPIR{group}", lambda s: v._read_hppir(s, group), None),
        row(
            f"BPR{group}",
            lambda s: v._read_bpr(s, group),
            lambda s, value: v._write_bpr(s, group, value),
        ),
        row(
            f"IGRPEN{group}",
            lambda s: v._read_igrpen(s, group),
            lambda s, value: v._write_igrpen(s, group, value),
        ),
    ]
    return rows + [_apr_row(group, n, routed, traps) for n in range(4)]


def _apr_row(group: int, n: int, routed: int, traps: int) -> _IccRow:
    v = VirtualCpuInterface
    return _IccRow(
        f"ICC_AP{group}R{n}_EL1",
        routed,
        traps,
        lambda s: v._read_apr(s, group, n),
        lambda s, value: v._write_apr(s, group, n, value),
        number=n,
    )


ICC_BINDINGS: tuple[_IccRow, ...] = (*_common_rows(), *_group_rows(0), *_group_rows(1))
_ICC: dict[int, _IccRow] = {ICC_REGISTERS[row.name]: row for row in ICC_BINDINGS}


def _ich_key(name: str) -> tuple[str, int]:
    """Return the attribute that stores an ICH register, and the index in this attribute: ("lr", 3)
    for ICH_LR3_EL2. The index is 0 if the attribute is not a list."""
    stem = name[len("ICH_") : -len("_EL2")].lower()
    for family in ("ap0r", "ap1r", "lr"):
        if stem.startswith(family) and stem[len(family) :].isdigit():
            return family, int(stem[len(family) :])
    return stem, 0


_ICH: dict[int, tuple[str, int]] = {
    encoding: _ich_key(name) for name, encoding in ICH_REGISTERS.items()
}
