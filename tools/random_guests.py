"""Random guests that use timers and the interrupt controller. The program is a function of its
seed.

`write(seed, gic, folder)` writes a flat binary for ``Machine``. The guest initialises the interrupt
controller and performs `STEPS` random actions: it uses its timers, SGIs, an SPI, masks and
priorities, spins, sleeps and executes exclusives. The guest and its interrupt handler add all
counts, lines and interrupts that they read to one sum. The guest prints the sum, so that a
difference of one tick, or an interrupt that is taken one instruction later, is visible on the
console. Most guests end; some wait for an event that never comes, which also ends the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asm import HS, LO, NE, Asm

from armvirt.arch import timer as t
from armvirt.arch.gic import ICC_REGISTERS

BASE, STACK, LOCK = 0x4020_0000, 0x4030_0000, 0x4031_0000
GICD, GICC, GICR, GICR_SGI, UART = 0x0800_0000, 0x0801_0000, 0x080A_0000, 0x080B_0000, 0x0900_0000
SYSTEM_OFF = 0x8400_0008
FREQUENCIES = (62_500_000, 62_500_000, 24_000_000, 19_200_000, 1_000_000, 1_000_000_000)
STEPS = (20, 60)
VTIMER, PTIMER, SPI = 27, 30, 40
MAX_INTERRUPTS = 60  # then the handler masks interrupts, so that no guest is in an endless storm
SUM, COUNT, A, B, C = 28, 27, 10, 11, 12  # registers: the sum, interrupts taken, scratch
HANDLER = (13, 14, 15)
TIMERS = {VTIMER: (t.CNTV_CTL_EL0, t.CNTV_CVAL_EL0, t.CNTV_TVAL_EL0, t.CNTVCT_EL0),
          PTIMER: (t.CNTP_CTL_EL0, t.CNTP_CVAL_EL0, t.CNTP_TVAL_EL0, t.CNTPCT_EL0)}  # fmt: skip
READ = (
    "CNTVCT_EL0",
    "CNTPCT_EL0",
    "CNTV_CTL_EL0",
    "CNTP_CTL_EL0",
    "ISR_EL1",
    "CNTV_TVAL_EL0",
    "CNTP_CVAL_EL0",
)
FRAMES = (0x100, 0x200, 0x300)  # enabled, pending, active


def icc(name: str) -> int:
    return ICC_REGISTERS[f"ICC_{name}_EL1"]


class Guest:
    """The program while it is written."""

    def __init__(self, seed: int, gic: int) -> None:
        self.rng, self.gic = random.Random(f"{seed} {gic}"), gic
        self.a = Asm(BASE)
        self.labels = 0
        self.private = GICR_SGI if gic == 3 else GICD
        self._start()
        for _ in range(self.rng.randint(*STEPS)):
            self.rng.choices(*zip(*self._steps(), strict=True))[0]()
        self._finish()
        self.a.vectors(lambda a, offset: a.b("irq" if offset & 0x180 == 0x80 else "fault"))
        self._handler()
        self._print()

    def _label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    # -- pieces --

    def store(self, address: int, value: int) -> None:
        self.a.mov(A, address)
        self.a.mov(B, value)
        self.a.str_w(B, A)

    def mix(self, register: int) -> None:
        """SUM = SUM * 3 + register."""
        self.a.add(B, SUM, SUM)
        self.a.add(SUM, SUM, B)
        self.a.add(SUM, SUM, register)

    def read(self, address: int) -> None:
        self.a.mov(A, address)
        self.a.ldr_w(C, A)
        self.mix(C)

    def _start(self) -> None:
        a = self.a
        a.mov(A, STACK)
        a.mov_sp(A)
        a.mov(SUM, 1)
        a.mov(COUNT, 0)
        a.set_vectors()
        for address in (self.private + 0x80, GICD + 0x84):
            self.store(address, 0xFFFF_FFFF if self.gic == 3 else 0)
        for at in range(0, 32, 4):
            self.store(self.private + 0x400 + at, self._priorities())
        self.store(GICD + 0x400 + SPI, 0xA0)
        if self.gic == 3:
            self.store(GICD + 0x6000 + 8 * SPI, 0)
        else:
            self.store(GICD + 0x800 + SPI, 1)
        self.store(self.private + 0x100, self._some(1 << VTIMER | 1 << PTIMER | 0xFF))
        self.store(GICD + 0x104, self._some(1 << SPI - 32))
        self.store(GICD, 0x13 if self.gic == 3 else 3)
        if self.gic == 3:
            for name, value in (("PMR", 0xF8), ("IGRPEN1", 1)):
                a.mov(A, value)
                a.msr(icc(name), A)
        else:
            self.store(GICC + 4, 0xF8)
            self.store(GICC, 1)
        a.isb()
        a.daifclr(2)

    def _priorities(self) -> int:
        return int.from_bytes(bytes(self.rng.randrange(0, 0xC0, 8) for _ in range(4)), "little")

    def _some(self, bits: int) -> int:
        """``bits``, or in one of five cases a random part of them."""
        return bits if self.rng.random() < 0.8 else bits & self.rng.getrandbits(32)

    # -- steps --

    def _steps(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self._program, 8), (self._control, 4), (self._spin, 8), (self._sleep, 4), (self._wait_for_event, 1),
            (self._look, 8), (self._look_at_gic, 5), (self._mask, 4), (self._sgi, 3), (self._set_bits, 4),
            (self._priority, 2), (self._exclusive, 3), (self._letter, 1),
        ]  # fmt: skip

    def _timer(self) -> tuple[int, int, int, int]:
        return TIMERS[VTIMER if self.rng.random() < 0.7 else PTIMER]

    def _program(self) -> None:
        ctl, cval, tval, count = self._timer()
        ticks = self.rng.choice((0, 1, 2, 3, self.rng.randrange(200), self.rng.randrange(3000)))
        if self.rng.random() < 0.5:
            self.a.mov(A, ticks)
            self.a.msr(tval, A)
        else:
            self.a.mrs(A, count)
            self.a.add_imm(A, A, ticks)
            self.a.msr(cval, A)
        self.a.mov(A, 1)
        self.a.msr(ctl, A)

    def _control(self) -> None:
        self.a.mov(A, self.rng.choice((0, 1, 1, 3)))
        self.a.msr(self._timer()[0], A)

    def _spin(self) -> None:
        again = self._label()
        self.a.mov(A, self.rng.choice((1, 3, 10, 100, 1000)))
        self.a.label(again)
        self.a.subs_imm(A, A, 1)
        self.a.cbnz(A, again)

    def _sleep(self) -> None:
        """WFI, mostly with a timer that ends it."""
        if self.rng.random() < 0.9:
            self.a.mov(A, self.rng.randrange(1, 3000))
            self.a.msr(t.CNTV_TVAL_EL0, A)
            self.a.mov(A, 1)
            self.a.msr(t.CNTV_CTL_EL0, A)
            if self.rng.random() < 0.9:
                self.store(self.private + 0x100, 1 << VTIMER)
                self._set_mask(0xF8)
        self.a.wfi()

    def _wait_for_event(self) -> None:
        """WFE with an event stream."""
        self.a.mov(A, 1 << 2 | self.rng.randrange(3, 9) << 4)
        self.a.msr("CNTKCTL_EL1", A)
        self.a.wfe()

    def _look(self) -> None:
        self.a.mrs(C, self.rng.choice(READ))
        self.mix(C)

    def _look_at_gic(self) -> None:
        if self.rng.random() < 0.5:
            self.read(self.private + self.rng.choice(FRAMES))
        elif self.gic == 3:
            self.a.mrs(C, icc(self.rng.choice(("HPPIR1", "RPR", "PMR"))))
            self.mix(C)
        else:
            self.read(GICC + self.rng.choice((0x14, 0x18, 0x04)))

    def _mask(self) -> None:
        if self.rng.random() < 0.4:
            self._set_mask(self.rng.choice((0xF8, 0xF8, 0x80, 0x40, 0)))
        else:
            (self.a.daifset if self.rng.random() < 0.3 else self.a.daifclr)(2)

    def _set_mask(self, value: int) -> None:
        if self.gic == 3:
            self.a.mov(A, value)
            self.a.msr(icc("PMR"), A)
        else:
            self.store(GICC + 4, value)

    def _sgi(self) -> None:
        number = self.rng.randrange(8)
        if self.gic == 3:
            self.a.mov(A, number << 24 | 1)
            self.a.msr(icc("SGI1R"), A)
        else:
            self.store(GICD + 0xF00, 2 << 24 | number)

    def _set_bits(self) -> None:
        """Set or clear enable, pending or active bits of the timers' interrupts or of the SPI."""
        bank = self.rng.choice((0x100, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x380))
        if self.rng.random() < 0.7:
            self.store(self.private + bank, 1 << self.rng.choice((VTIMER, PTIMER)))
        else:
            self.store(GICD + bank + 4, 1 << SPI - 32)

    def _priority(self) -> None:
        self.store(self.private + 0x400 + 4 * self.rng.randrange(8), self._priorities())

    def _exclusive(self) -> None:
        """Increment a counter with LDXR and STXR."""
        again = self._label()
        self.a.mov(A, LOCK)
        self.a.label(again)
        self.a.ldxr(B, A)
        self.a.add_imm(B, B, 1)
        for _ in range(self.rng.randrange(6)):
            self.a.nop()
        self.a.stxr(C, B, A)
        self.a.cbnz(C, again)

    def _letter(self) -> None:
        self.store(UART, ord("a") + self.rng.randrange(26))

    # -- the rest --

    def _finish(self) -> None:
        a = self.a
        a.daifset(2)
        a.mrs(C, t.CNTVCT_EL0)
        self.mix(C)
        self.mix(COUNT)
        a.b("print")

    def _handler(self) -> None:
        a = self.a
        acknowledged, x, y = HANDLER
        a.label("irq")
        a.stp_pre(A, B, 31, -32)
        a.str_(C, 31, 16)
        self._acknowledge(acknowledged)
        a.mrs(C, t.CNTVCT_EL0)
        self.mix(C)
        self.mix(acknowledged)
        a.mov(x, 0x3FF)
        a.and_(y, acknowledged, x)
        for intid, (ctl, cval, tval, _) in TIMERS.items():
            self._serve_timer(intid, y, ctl, cval, tval)
        a.mov(x, 1020)
        a.subs(x, y, x)
        a.b_cond(HS, "served")  # a special INTID is not ended
        self._end(acknowledged)
        a.label("served")
        a.add_imm(COUNT, COUNT, 1)
        a.cmp_imm(COUNT, MAX_INTERRUPTS)
        a.b_cond(LO, "back")
        a.mrs(A, "SPSR_EL1")
        a.mov(B, 0x80)
        a.orr(A, A, B)
        a.msr("SPSR_EL1", A)
        a.label("back")
        a.ldr(C, 31, 16)
        a.ldp_post(A, B, 31, 32)
        a.eret()

    def _serve_timer(self, intid: int, register: int, ctl: int, cval: int, tval: int) -> None:
        """Switch the timer off, mask it, or write its compare value."""
        a, other = self.a, self._label()
        a.cmp_imm(register, intid)
        a.b_cond(NE, other)
        how = self.rng.randrange(3)
        if how < 2:
            a.mov(A, (0, 3)[how])
            a.msr(ctl, A)
        elif self.rng.random() < 0.5:
            a.mov(A, self.rng.randrange(50, 2000))
            a.msr(tval, A)
        else:
            a.mrs(A, cval)
            a.add_imm(A, A, self.rng.randrange(50, 2000))
            a.msr(cval, A)
        a.label(other)

    def _acknowledge(self, register: int) -> None:
        if self.gic == 3:
            self.a.mrs(register, icc("IAR1"))
        else:
            self.a.mov(A, GICC + 0xC)
            self.a.ldr_w(register, A)

    def _end(self, register: int) -> None:
        if self.gic == 3:
            self.a.msr(icc("EOIR1"), register)
        else:
            self.a.mov(A, GICC + 0x10)
            self.a.str_w(register, A)

    def _print(self) -> None:
        """Print the sum as letters, and end; a fault prints '!' first."""
        a = self.a
        a.label("fault")
        self.store(UART, ord("!"))
        a.label("print")
        a.mov(A, UART)
        a.mov(C, 16)
        a.label("digit")
        a.lsr(B, SUM, 60)
        a.add_imm(B, B, ord("a"))
        a.str_w(B, A)
        for _ in range(4):
            a.add(SUM, SUM, SUM)
        a.subs_imm(C, C, 1)
        a.cbnz(C, "digit")
        for letter in b"\nVERDICT: PASS\n":
            a.mov(B, letter)
            a.str_w(B, A)
        a.mov(0, SYSTEM_OFF)
        a.hvc(0)


def write(seed: int, gic: int, folder: Path) -> Path:
    """Write the guest of a seed as a flat binary for `BASE`."""
    path = folder / f"random-{seed}-v{gic}.bin"
    path.write_bytes(Guest(seed, gic).a.code())
    return path


def options(seed: int) -> dict[str, Any]:
    """The arguments of `Machine` for a seed: both GICs, nVHE and VHE hosts, counters of several
    frequencies."""
    rng = random.Random(f"machine {seed}")
    return {
        "gic": 2 + seed % 2, "vhe": rng.random() < 0.5, "cntfrq": rng.choice(FREQUENCIES),
        "list_registers": rng.choice((1, 4, 4)),
    }  # fmt: skip
