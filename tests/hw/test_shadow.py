"""The native engine's shadow registers behave as the PE's registers: the same guest runs with and
without a trace.

A trace sink keeps every register here, so the run beside it is Python's own.
"""

from __future__ import annotations

import ctypes as C
import mmap
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from asm import Asm
from engine.bench import DATA, RAM, RAM_SIZE
from engine.conftest import make_factory

from armvirt.arch import gic as arch
from armvirt.arch.gic import ListRegister
from armvirt.arch.named import HCR_EL2, HCR_FMO, HCR_IMO
from armvirt.arch.timer import CNTHCTL_EL2, CntHctl
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.config import HostConfig
from armvirt.hw.context import Context, ShareableDomain
from armvirt.hw.engine.state import Stat
from armvirt.hw.exit import ExitKind, SyncExit
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import Action, Pe

HCR_RW = 1 << 31
DAIF_EL1H = 0x3C5
TIMERS = [f"CNT{t}_{r}_EL0" for t in "VP" for r in ("CTL", "CVAL", "TVAL")]
COUNTERS = ["CNTVCT_EL0", "CNTPCT_EL0"]
CONTROLS = ["PMR", "BPR0", "BPR1", "CTLR", "IGRPEN0", "IGRPEN1", "AP0R0", "AP1R0"]
READS = ["IAR0", "IAR1", "HPPIR0", "HPPIR1", "RPR", *CONTROLS]
WRITES = ["EOIR0", "EOIR1", "DIR", *CONTROLS]
INTIDS = [5, 27, 30, 32, 33, 1020, 1023, 8192, 8193, 0x1_0021]
SPREAD = [0, 0, 1, 1, 2, 3, 5, 9]  # ticks around a deadline


FALLEN = (
    -1
)  # for an ESR or an INTID: the PE left because a line fell whose interrupt waits for the guest


class Shape(NamedTuple):
    """A PE."""

    list_registers: int
    prebits: int
    frequency_hz: int


ORDINARY = Shape(2, 5, 62_500_000)


class Setting(NamedTuple):
    """What EL2 has programmed when the guest begins; of a timer: offset, CTL, CVAL less the present
    count."""

    lrs: list[int]
    hcr: int = arch.ICH_HCR_EN
    vmcr: int = 0xF8 << arch.VMCR_VPMR_SHIFT | arch.VMCR_VENG0 | arch.VMCR_VENG1
    aprs: tuple[int, int] = (0, 0)
    active: int = 0
    timers: tuple[tuple[int, int, int], tuple[int, int, int]] = ((0, 0, 0), (0, 0, 0))
    waiting: int = 0


class Access(NamedTuple):
    """``value`` None: a read."""

    register: str
    value: int | None = None


class Machine:
    """One PE that runs accesses with interrupts masked; what is read goes to memory from DATA
    on."""

    def __init__(self, shape: Shape, watched: bool) -> None:
        self.bus, self.clock, self.gic = EventBus(), Clock(), PhysicalGic(1)
        if watched:
            self.bus.subscribe(lambda stamp, event: None)
        config = HostConfig(
            frequency_hz=shape.frequency_hz,
            list_registers=shape.list_registers,
            priority_bits=shape.prebits,
            cntpoff=True,
        )
        self.pe = Pe(0, self.clock, self.gic, self.bus, config)
        self.ram = mmap.mmap(-1, RAM_SIZE)
        factory = make_factory("native")
        self.context = Context(factory.create(), ShareableDomain(factory))
        self.context.engine.map_memory(RAM, RAM_SIZE, C.addressof(C.c_char.from_buffer(self.ram)))
        self.exits: list[tuple[int, int]] = []

    def begin(self, setting: Setting, accesses: list[Access]) -> None:
        engine, pe = self.context.engine, self.pe
        program = _program(accesses)
        self.ram[: len(program)] = program
        engine.invalidate_all_code()
        engine.pstate, engine.pc = DAIF_EL1H, RAM
        engine.rebuild_flags()
        self.exits.clear()
        pe.bind(self.context, 0)
        pe.write_el2(HCR_EL2, HCR_RW | HCR_IMO | HCR_FMO)
        pe.write_el2(CNTHCTL_EL2, CntHctl.ECV | CntHctl.EL1PCEN | CntHctl.EL1PCTEN)
        for intid in (25, 27, 30):
            self.gic.enable(0, intid, True)
            self.gic.set_active(0, intid, bool(setting.active >> intid & 1))
        registers = len(pe.vif.ap0r)
        pe.vif.restore(setting.vmcr, [setting.aprs[0]] * registers, [setting.aprs[1]] * registers)
        pe.vif.program(setting.hcr, setting.lrs, setting.waiting)
        now = pe.timer.count()
        programs = (pe.timer.program_virtual, pe.timer.program_physical)
        for program_timer, (offset, ctl, ahead) in zip(programs, setting.timers, strict=True):
            program_timer(offset, ctl, now - offset + ahead & (1 << 64) - 1)

    def run(self, slice_ns: int) -> dict[str, Any]:
        """To the HVC at the end, in slices; EL2 takes each of its interrupts once. All that can be
        seen afterwards."""
        ended = False

        def on_exit(exit: SyncExit) -> int:
            nonlocal ended
            self.exits.append((exit.esr, self.clock.now))
            ended = exit.esr >> 26 == 0x16
            return Action.STOP if ended else Action.ADVANCE

        while not ended:
            kind = self.pe.run(self.clock.now + slice_ns, on_exit)
            if kind is ExitKind.STOPPED and not ended:
                self.exits.append((FALLEN, self.clock.now))
            if kind is ExitKind.IRQ:
                intid = self.gic.acknowledge(0)
                self.exits.append((intid, self.clock.now))
                self.gic.enable(0, intid, False)
                self.gic.deactivate(0, intid)
        return self._look()

    def _look(self) -> dict[str, Any]:
        engine, vif = self.context.engine, self.pe.vif
        return {
            "pe": self.pe.state(), "gic": self.gic.state(), "now": self.clock.now, "exits": list(self.exits),
            "read": self.ram[DATA - RAM : DATA - RAM + 0x400], "lines": (engine.state.virq, engine.state.vfiq),
            "outputs": (vif.virq, vif.vfiq, vif.maintenance, vif.candidate, vif.signalled),
        }  # fmt: skip

    @property
    def native_accesses(self) -> int:
        return int(self.context.engine.state.stats[Stat.ICC])

    def close(self) -> None:
        self.pe.unbind()
        self.context.engine.close()


def _program(accesses: list[Access]) -> bytes:
    a = Asm(RAM)
    a.mov(2, DATA)
    for register, value in accesses:
        name = register if register.startswith("CNT") else f"ICC_{register}_EL1"
        encoding: str | int = name if register.startswith("CNT") else arch.ICC_REGISTERS[name]
        if value is None:
            a.mrs(1, encoding)
            a.str_post(1, 2, 8)
        else:
            a.mov(1, value)
            a.msr(encoding, 1)
    a.hvc(0)
    return a.code()


class Pair:
    """The same PE twice: what can be lent is lent by one, and nothing by the other."""

    def __init__(self, shape: Shape) -> None:
        self.lent, self.watched = Machine(shape, False), Machine(shape, True)

    def run(
        self, setting: Setting, accesses: list[Access], slice_ns: int = 1 << 40
    ) -> list[tuple[int, int]]:
        """Both see the same; the exits to EL2, with their times."""
        results = []
        for machine in (self.lent, self.watched):
            machine.begin(setting, accesses)
            results.append(machine.run(slice_ns))
        assert results[0] == results[1], (setting, accesses, slice_ns)
        assert self.watched.native_accesses == 0
        return list(self.lent.exits)


@contextmanager
def pair(shape: Shape = ORDINARY) -> Iterator[Pair]:
    made = Pair(shape)
    yield made
    made.lent.close()
    made.watched.close()


# -- at random -----------------------------------------------------------------------------------


class Chance:
    """Settings and accesses in which something happens: few INTIDs and priorities, deadlines close
    by."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.random, self.shape = random.Random(seed), shape
        step = 1 << 8 - shape.prebits
        self.priorities = [0, step, 2 * step, 0x40, 0x40 + step, 0x80, 0xF8, 0xFF]

    def list_register(self) -> int:
        pick = self.random.choice
        if pick([True, False, False]):
            return 0
        state = pick([0, 1, 1, 1, 2, 2, 3])
        value = ListRegister(
            pick(INTIDS) & 0xFFFF,
            pick(self.priorities),
            pick([0, 1, 1]),
            bool(state & 1),
            bool(state & 2),
        ).encode()
        if pick([True, False]):
            return value | arch.LR_HW | pick([25, 27, 30, 31, 40, 0x21B]) << arch.LR_PINTID_SHIFT
        return value | pick([0, arch.LR_EOI])

    def setting(self) -> Setting:
        pick, bits = self.random.choice, self.random.getrandbits
        vmcr = pick([0x3FF, 3, 3, 2, 1]) & (
            arch.VMCR_FLAGS & ~arch.VMCR_VCBPR | pick([0, arch.VMCR_VCBPR])
        )
        vmcr |= (
            pick([0, bits(6)]) << arch.VMCR_VBPR1_SHIFT
            | pick([0xFF, 0xFF, 0x80, 0x40]) << arch.VMCR_VPMR_SHIFT
        )
        aprs = tuple(pick([0, 0, 1 << bits(4), 1 << bits(5) | 1]) for _ in range(2))

        def timer() -> tuple[int, int, int]:
            return (
                pick([0, 0x1000_0000, (1 << 64) - 5]),
                pick([0, 1, 1, 3]),
                pick(SPREAD) - pick(SPREAD),
            )

        return Setting(
            [self.list_register() for _ in range(self.shape.list_registers)],
            arch.ICH_HCR_EN
            | pick([0] * 8 + [arch.ICH_HCR_UIE, arch.ICH_HCR_TDIR, arch.ICH_HCR_NPIE, arch.ICH_HCR_TALL0]),
            vmcr,
            aprs, pick([0, 0, 1 << 27, 1 << 30, 1 << 25]), (timer(), timer()),  # type: ignore[arg-type]
            pick([0, 0, 0, 1 << 27, 1 << 30]),
        )  # fmt: skip

    def access(self) -> Access:
        pick = self.random.choice
        kind = self.random.random()
        if kind < 0.25:
            return Access(pick(["IAR0", "IAR1", "IAR1"]))
        if kind < 0.5:
            return Access(pick(["EOIR0", "EOIR1", "EOIR1", "DIR"]), pick(INTIDS))
        if kind < 0.65:
            return Access(pick(READS))
        if kind < 0.72:
            return Access("PMR", pick(self.priorities))
        if kind < 0.8:
            return Access(pick(WRITES), pick([*INTIDS, *self.priorities, 1 << 1, 3]))
        if kind < 0.9:
            return Access(pick(TIMERS + COUNTERS))
        return self.timer_write()

    def timer_write(self) -> Access:
        pick, timer = self.random.choice, self.random.choice("VP")
        near = pick(SPREAD) - pick(SPREAD)
        register, value = pick([("CTL", pick([0, 1, 1, 2, 3, 7])), ("TVAL", near & 0xFFFF_FFFF), ("TVAL", 1 << 31),
                                ("CVAL", 1 << 63), ("CVAL", (1 << 64) - 1), ("CVAL", 0)])  # fmt: skip
        return Access(f"CNT{timer}_{register}_EL0", value)


ROUNDS = 250
SHAPES = [
    Shape(1, 5, 24_000_000),
    Shape(2, 7, 1_000_000_000),
    Shape(4, 5, 333_333_333),
    Shape(4, 6, 1_000_000_000),
]


@pytest.mark.parametrize("seed", range(len(SHAPES)))
def test_lent_registers_are_the_same_registers(seed: int) -> None:
    chance = Chance(seed, SHAPES[seed])
    with pair(SHAPES[seed]) as machines:
        for _ in range(ROUNDS):
            accesses = [chance.access() for _ in range(chance.random.choice([4, 12, 40]))]
            machines.run(chance.setting(), accesses, chance.random.choice([3, 17, 1 << 40]))
        assert machines.lent.native_accesses > ROUNDS


# -- by hand -------------------------------------------------------------------------------------

PENDING = ListRegister(33, 0x80, 1, True, False).encode() | arch.LR_EOI
INTERRUPT = [Access("IAR1"), Access("EOIR1", 33)]


def test_an_interrupt_is_taken_and_ended_without_a_callback() -> None:
    with pair() as machines:
        exits = machines.run(Setting([PENDING, 0]), INTERRUPT)
        assert machines.lent.native_accesses == 2
        assert [intid for intid, _ in exits[:-1]] == [25], "its end asks for maintenance"


@pytest.mark.parametrize(
    "flag", [arch.ICH_HCR_UIE, arch.ICH_HCR_TC, arch.ICH_HCR_TALL1], ids=["UIE", "TC", "TALL1"]
)
def test_what_el2_wants_to_see_is_not_lent(flag: int) -> None:
    with pair() as machines:
        machines.run(Setting([PENDING, 0], arch.ICH_HCR_EN | flag), INTERRUPT)
        assert machines.lent.native_accesses == 0


def test_a_comparator_that_is_met_leaves_the_engine_at_once() -> None:
    accesses = [Access("CNTV_CVAL_EL0", 0), Access("CNTV_CTL_EL0", 1), *[Access("CNTVCT_EL0")] * 5]
    with pair() as machines:
        assert machines.run(Setting([0, 0]), accesses)[0][0] == 27


def test_a_deadline_that_the_guest_moves_is_kept() -> None:
    """Programmed without a callback, and met in the middle of a block."""
    accesses = [
        Access("CNTV_CTL_EL0", 1),
        Access("CNTV_TVAL_EL0", 40),
        *[Access("CNTVCT_EL0")] * 40,
    ]
    with pair(Shape(1, 5, 1_000_000_000)) as machines:
        setting = Setting([0], timers=((0, 0, 1 << 40), (0, 0, 0)))
        assert [intid for intid, _ in machines.run(setting, accesses)[:-1]] == [27]
        assert machines.lent.context.engine.state.stats[Stat.TIMER] == 2


@pytest.mark.parametrize(("name", "intid"), [("V", 27), ("P", 30)])
def test_a_line_that_falls_leaves_the_engine_while_its_interrupt_waits(
    name: str, intid: int
) -> None:
    """At the first of the two writes: the line is low at the second."""
    high = (0, 1, 0)
    off = [Access(f"CNT{name}_CTL_EL0", 0), Access(f"CNT{name}_CTL_EL0", 2), Access("RPR")]
    pending = ListRegister(intid, 0x80, 1, True, False, pintid=intid).encode()
    active = ListRegister(intid, 0x80, 1, False, True, pintid=intid).encode()
    other = ListRegister(57 - intid, 0x80, 1, True, False, pintid=57 - intid).encode()
    with pair() as machines:
        for lrs, waiting, falls in (
            ([0, pending], 0, 1), ([active, 0], 0, 0), ([other, 0], 0, 0), ([0, 0], 0, 0), ([0, 0], 1 << intid, 1),
        ):  # fmt: skip
            setting = Setting(lrs, active=1 << 27 | 1 << 30, timers=(high, high), waiting=waiting)
            left = [what for what, _ in machines.run(setting, off) if what == FALLEN]
            assert len(left) == falls, (lrs, waiting)
