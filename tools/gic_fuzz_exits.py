"""Random use of a vGIC, compared with the same use with additional exits: nothing that a guest can
see may depend on exits.

`compare` runs two machines of one seed in step. Both perform the necessary actions before an entry.
One of them also folds its list registers and fills them again, after steps that a separate random
source selects. After each step the results of all reads and the state of every CPU interface must
be equal: the highest pending interrupt, the priorities, the signals.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gic_fuzz import IAR0, IAR1, VTIMER, Fuzzer, LawError

from armvirt.arch.gic import ICC_REGISTERS, VMCR_VEOIM
from armvirt.hw.ich import VirtualCpuInterface

RATE = 0.3  # of steps with an exit after them
INTIDS = (1, 2, VTIMER, VTIMER, VTIMER, 40, 41, 42, 43, 44, 45)
PRIORITIES = (0x40, 0x40, 0x40, 0x80)
ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER = range(0x100, 0x400, 0x80)
OFTEN = (ISENABLER, ISENABLER, ICENABLER, ISPENDR, ISPENDR, ISPENDR, ICPENDR, ICACTIVER)
SGI1R, CTLR, PMR = (ICC_REGISTERS[f"ICC_{name}_EL1"] for name in ("SGI1R", "CTLR", "PMR"))
MASKS = (0xF8, 0xF8, 0xF8, 0x80, 0x40)
GICR_SGI_FRAME, GICR_STRIDE = 0x1_0000, 0x2_0000
IPRIORITYR, ICFGR, SGIR, GICC_PMR = 0x400, 0xC00, 0xF00, 0x04


class Guests(Fuzzer):
    """Guests that use a few interrupts very often, most of them with one priority. With ``exits``
    there are exits without a reason.

    The guests end the interrupts that they have acknowledged, the most recent first, each with its
    INTID and in its EOImode. An end of another INTID is UNPREDICTABLE (IHI 0069 12.2.10): it may
    end an interrupt that is in no list register, and EL2 only knows that one of these ended, not
    which.
    """

    def __init__(self, seed: int, exits: bool) -> None:
        self._source, self._exits = random.Random(~seed), exits
        super().__init__(seed)

    def settle(self) -> None:
        super().settle()
        if self._exits and self._source.random() < RATE:
            for vcpu in self.pe_of:
                if self._source.random() < 0.5:
                    self.vgic.sync(vcpu)
                    self.vgic.flush(vcpu)
            super().settle()

    def _set_up(self) -> None:
        """Enable everything, in the group that IAR1 or GICC_IAR acknowledges; half of the SPIs are
        level-sensitive."""
        dist = self.frames[0][1]
        dist.write(0, 0, 4, 3)
        for vcpu in range(self.vcpus):
            self._private(vcpu).write(vcpu, self._at(vcpu, ISENABLER), 4, 0xFFFF_FFFF)
            for intid in INTIDS:
                self._prioritise(vcpu, intid)
            if self.model == 2:
                self.frames[1][1].write(vcpu, GICC_PMR, 4, 0xF8)
                self.frames[1][1].write(vcpu, 0, 4, 3)
                continue
            for name, value in (("PMR", 0xF8), ("IGRPEN0", 1), ("IGRPEN1", 1)):
                self._icc(vcpu, ICC_REGISTERS[f"ICC_{name}_EL1"], True, value)
        dist.write(0, ISENABLER + 4, 4, 0xFFFF_FFFF)
        dist.write(0, ICFGR + 8, 4, 0xAAAA_AAAA & 0x00FF_0000)

    # Registers of an INTID, wherever they are

    def _private(self, vcpu: int) -> Any:
        return self.frames[0][1] if self.model == 2 else self._frame("GICR")

    def _at(self, vcpu: int, offset: int) -> int:
        return offset if self.model == 2 else vcpu * GICR_STRIDE + GICR_SGI_FRAME + offset

    def _bank(self, vcpu: int, intid: int, offset: int, per_byte: int) -> tuple[Any, int]:
        """The frame and the offset of the byte with the field of ``intid``."""
        if intid < 32:
            return self._private(vcpu), self._at(vcpu, offset) + intid // per_byte
        return self.frames[0][1], offset + intid // per_byte

    def _prioritise(self, vcpu: int, intid: int) -> None:
        frame, at = self._bank(vcpu, intid, IPRIORITYR, 1)
        frame.write(vcpu, at, 1, self.rng.choice(PRIORITIES))

    # What happens

    def _weights(self) -> list[Callable[[], None]]:
        return [
            *[self._take] * 30, *[self._finish] * 25, *[self._register] * 18, *[self._look] * 4, *[self._pulse] * 12,
            *[self._timer] * 8, *[self._mask] * 2, *[self._host] * 1,
        ]  # fmt: skip

    def _take(self) -> None:
        vcpu = self._loaded()
        if vcpu is None or len(self.taken[vcpu]) > 6:
            return
        if self.model == 2:
            intid = self.frames[1][1].read(vcpu, 0x0C, 4)
            self.log.append(f"vCPU {vcpu} reads {intid:#x} from GICC_IAR")
            if intid & 0x3FF < 1020:
                self.taken[vcpu].append((intid, 0))
                self.acknowledged += 1
            return
        self._acknowledge(vcpu, IAR0 if self.vifs[self.pe_of[vcpu]].vfiq else IAR1)

    def _finish(self) -> None:
        vcpu = self._loaded()
        if vcpu is None or not self.taken[vcpu]:
            return
        intid, group = self.taken[vcpu].pop()
        if self.model == 2:
            self.log.append(f"vCPU {vcpu} writes {intid:#x} to GICC_EOIR")
            self.frames[1][1].write(vcpu, 0x10, 4, intid)
        else:
            self._end(vcpu, intid, group)

    def _register(self) -> None:
        """Write a bit or a priority of an interrupt, of this vCPU or of another."""
        rng, vcpu, owner, intid = self.rng, self._vcpu(), self._vcpu(), self.rng.choice(INTIDS)
        if self.model == 2:
            owner = vcpu
        kind = rng.random()
        if kind < 0.15:
            self.log.append(f"vCPU {vcpu} sets the priority of INTID {intid}")
            self._prioritise(owner, intid)
        elif kind < 0.3:
            self._send(vcpu, rng.choice((1, 2)))
        else:
            offset = rng.choice(OFTEN)
            frame, at = self._bank(owner, intid, offset, 8)
            self.log.append(f"vCPU {vcpu} writes INTID {intid} to {offset:#x} of vCPU {owner}")
            frame.write(vcpu, at, 1, 1 << intid % 8)

    def _send(self, vcpu: int, intid: int) -> None:
        self.log.append(f"vCPU {vcpu} sends SGI {intid} to itself")
        if self.model == 2:
            self.frames[0][1].write(vcpu, SGIR, 4, 2 << 24 | intid)
        elif vcpu in self.pe_of:
            self._icc(vcpu, SGI1R, True, intid << 24 | 1 << vcpu)

    def _look(self) -> None:
        """Read which interrupts are pending or active."""
        vcpu, offset, intid = (
            self._vcpu(),
            self.rng.choice((ISPENDR, ISACTIVER)),
            self.rng.choice(INTIDS),
        )
        frame, at = self._bank(vcpu, intid, offset, 8)
        self.log.append(
            f"vCPU {vcpu} reads {frame.read(vcpu, at, 1):#x} at {offset:#x}, INTID {intid}"
        )

    def _pulse(self) -> None:
        intid, level = self.rng.choice(INTIDS[5:]), self.rng.random() < 0.6
        self.log.append(f"line of INTID {intid}: {level}")
        self.vgic.inject(None, intid, level)

    def _mask(self) -> None:
        """Write PMR, and EOImode while no interrupt is running."""
        vcpu = self._loaded()
        if vcpu is None or self.model == 2:
            return
        mode = (
            self.rng.choice((0, 2))
            if not self.taken[vcpu]
            else self.vifs[self.pe_of[vcpu]].vmcr & VMCR_VEOIM and 2
        )
        self._icc(vcpu, PMR, True, self.rng.choice(MASKS))
        self._icc(vcpu, CTLR, True, mode)
        self.log.append(f"vCPU {vcpu}: another PMR, EOImode {mode >> 1}")


def seen(vif: VirtualCpuInterface) -> tuple[Any, ...]:
    """The state of a CPU interface that a guest can read, and its signals."""
    highest = -1 if vif.candidate < 0 else vif.lr[vif.candidate] & (1 << 60 | 0xFFFF)
    return (
        highest,
        vif.running_priority(),
        list(vif.ap0r),
        list(vif.ap1r),
        vif.vmcr,
        vif.virq,
        vif.vfiq,
    )


def compare(seed: int, steps: int) -> int:
    """Run ``steps`` steps on both machines of a seed; returns the number of interrupts that were
    taken. LawError at a difference."""
    plain, looked = Guests(seed, False), Guests(seed, True)
    for step in range(steps):
        plain.run(1)
        looked.run(1)
        if plain.log and plain.log[-1] != looked.log[-1]:
            raise LawError(_difference(seed, step, f"{looked.log[-1]!r} with exits", plain))
        for vcpu, pe in plain.pe_of.items():
            ours, theirs = seen(plain.vifs[pe]), seen(looked.vifs[pe])
            if ours != theirs:
                raise LawError(
                    _difference(seed, step, f"vCPU {vcpu} sees {ours}, with exits {theirs}", plain)
                )
    return plain.acknowledged


def _difference(seed: int, step: int, what: str, plain: Fuzzer) -> str:
    return f"seed {seed}, step {step}: {what}; the last actions:\n  " + "\n  ".join(plain.log)
