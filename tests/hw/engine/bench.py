"""One engine without a VM: RAM, callbacks that record their calls and answer them, and optional
stage-1 and stage-2 tables.

Guest convention: HVC with an immediate of STOP or more stops the run; any other HVC goes on (or
does what the test put in ``callbacks.on_hvc``). Vectors of `stop_vectors` stop with STOP_VECTOR +
offset / 128.
"""

from __future__ import annotations

import ctypes as C
import mmap
import struct
from collections.abc import Callable, Sequence

from asm import Asm

from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.sysregs import encoding_of
from armvirt.hw.engine import Action, Engine, EngineFactory, Leave
from armvirt.hw.engine.state import EventRecord

RAM, RAM_SIZE = 0x4000_0000, 1 << 20
DATA, STACK, TABLES = RAM + 0x8_0000, RAM + 0x9_0000, RAM + 0xC_0000
FOREVER = 1 << 40
STOP, STOP_VECTOR = 0xF0, 0x100
FREQUENCY, COUNTER_START = 62_500_000, 1000

RW, TPU, TSC, TID3, TWI, IMO, FMO = 1 << 31, 1 << 24, 1 << 19, 1 << 18, 1 << 13, 1 << 4, 1 << 3
HCR = RW | TPU | TSC | TWI | IMO | FMO
MDCR_TPM = 1 << 6 | 1 << 5
EL0T, EL1T, EL1H, DAIF = 0, 4, 5, 0xF << 6

IAR1, EOIR1, PMR = (
    ICC_REGISTERS["ICC_IAR1_EL1"],
    ICC_REGISTERS["ICC_EOIR1_EL1"],
    ICC_REGISTERS["ICC_PMR_EL1"],
)
CNTV_CTL, CNTV_CVAL = sysreg(3, 3, 14, 3, 1), sysreg(3, 3, 14, 3, 2)
UNDEF_ESR = 1 << 25
INTID = 27

Result = tuple[list[tuple[object, ...]], int, dict[str, object], bytes]


class Recorder:
    """Callbacks of a PE with one of everything. The virtual interrupt that the test raises falls when
    IAR1 is read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.log: list[tuple[object, ...]] = []
        self.on_hvc: dict[int, Callable[[], int]] = {}
        self.timer: dict[int, int] = {}
        self.polls = 0
        self.stop_on_poll = False

    def el2_exit(self) -> int:
        state = self.engine.state
        far = state.far if state.esr >> 26 in (0x20, 0x24) else 0  # else FAR_EL2 is UNKNOWN
        self.log.append(("el2", state.esr, far, state.pc, state.rt, state.rt_value, state.count))
        if state.esr >> 26 == 0x20:
            return Action.STOP
        if state.esr >> 26 != 0x16:
            return Action.ADVANCE
        imm = state.esr & 0xFFFF
        if imm in self.on_hvc:
            return self.on_hvc[imm]()
        return Action.STOP if imm >= STOP else Action.RETRY

    def undefined(self) -> int:
        state = self.engine.state
        self.log.append(("undefined", state.insn, state.rt, state.rt_value, state.pc, state.count))
        if not self.engine.pstate & 0xC or state.insn & 0xFFE0001F == 0xD4400000:
            state.enter_esr, state.enter_has_far = UNDEF_ESR, 0
            return Action.ENTER
        if not state.insn & 1 << 21:
            return Action.ADVANCE
        state.rt_value = 0
        if state.insn >> 5 & 0xFFFF == IAR1 and (state.virq or state.vfiq):
            state.rt_value, state.virq, state.vfiq = INTID, 0, 0
        return Action.WRITE_RT | Action.ADVANCE

    def timer_access(self) -> None:
        state = self.engine.state
        self.log.append(
            ("timer", state.timer_encoding, state.timer_write, state.value, state.pc, state.count)
        )
        if state.timer_write:
            self.timer[state.timer_encoding] = state.value
        else:
            state.value = self.timer.get(state.timer_encoding, 0)

    on_skip: Callable[[int], None] | None = None

    def poll(self) -> bool:
        self.polls += 1
        return self.stop_on_poll

    def entries(self, records: list[EventRecord]) -> None:
        self.log += [("entry", r.what, r.elr, r.target, r.esr, r.count, r.ns) for r in records]

    def broadcast(self, encoding: int, value: int) -> None:
        self.log.append(("broadcast", encoding, value))

    def send_event(self, count: int) -> None:
        self.log.append(("sev", count))

    def of(self, kind: str) -> list[tuple[object, ...]]:
        """The log's lines of one kind, without the kind."""
        return [line[1:] for line in self.log if line[0] == kind]

    def seen(self) -> list[tuple[object, ...]]:
        """The log in the order of counts: entries reach us late, in batches, at moments that may
        differ."""
        return [line for line in self.log if line[0] != "entry"] + [
            line for line in self.log if line[0] == "entry"
        ]


class Bench:
    """``ram`` may be shared with another bench: it then is one machine with two CPUs."""

    def __init__(
        self,
        factory: EngineFactory,
        program: Asm | None = None,
        *,
        pstate: int = DAIF | EL1H,
        hcr: int = HCR,
        mdcr: int = MDCR_TPM,
        base: int = RAM,
        ram: mmap.mmap | None = None,
    ) -> None:
        self.factory, self.base, self._hcr, self._mdcr = factory, base, hcr, mdcr
        self.ram = mmap.mmap(-1, RAM_SIZE) if ram is None else ram
        self.engine = self._create()
        self.callbacks = Recorder(self.engine)
        self.engine.callbacks = self.callbacks
        self.engine.pstate = pstate
        self.engine.pc = base if program is None else program.base
        if program is not None:
            self.write(program.base, program.code())
        self.engine.sp = STACK
        self.engine.rebuild_flags()

    def _create(self) -> Engine:
        engine = self.factory.create()
        engine.map_memory(self.base, RAM_SIZE, C.addressof(C.c_char.from_buffer(self.ram)))
        engine.state.frequency, engine.state.counter_start, engine.state.trace = (
            FREQUENCY,
            COUNTER_START,
            1,
        )
        engine.set_hcr(self._hcr)
        engine.set_mdcr(self._mdcr)
        engine.write_system(encoding_of("OSLSR_EL1"), 8)  # the OS lock open, as an OS leaves it
        return engine

    def close(self) -> None:
        self.engine.close()

    # -- running --

    def run(self, deadline: int = FOREVER) -> Leave:
        return self.engine.run(deadline)

    def move(self) -> None:
        """Save, and go on in a fresh engine; memory and the callbacks stay."""
        saved, state = self.engine.save(), self.engine.state
        fresh = self._create()
        fresh.load(saved)
        if state.wfe_watch:
            fresh.watch_wfe()
        fresh.state.virq, fresh.state.vfiq = state.virq, state.vfiq
        self.engine.close()
        self.engine = self.callbacks.engine = fresh
        fresh.callbacks = self.callbacks

    def result(self) -> Result:
        """All that an observer can tell one run from another by."""
        return self.callbacks.seen(), self.engine.state.count, self.engine.save(), bytes(self.ram)

    # -- looking and touching --

    @property
    def count(self) -> int:
        return self.engine.state.count

    def x(self, n: int) -> int:
        return self.engine.x(n)

    def system(self, name: str) -> int:
        return self.engine.read_system(encoding_of(name))

    def set_system(self, name: str, value: int) -> None:
        self.engine.write_system(encoding_of(name), value)

    def set_cnthctl(self, value: int) -> None:
        self.set_system("CNTHCTL_EL2", value)
        self.engine.state.cnthctl = value

    def write(self, address: int, data: bytes) -> None:
        """Into RAM behind the engine's back, as a device does."""
        self.ram[address - self.base : address - self.base + len(data)] = data

    def write64(self, address: int, *values: int) -> None:
        self.write(address, struct.pack(f"<{len(values)}Q", *values))

    def read64(self, address: int) -> int:
        value: int = struct.unpack_from("<Q", self.ram, address - self.base)[0]
        return value


# -- vectors -------------------------------------------------------------------------------------


def stop_vectors(program: Asm) -> None:
    """Vectors that stop and say which they are."""
    program.vectors(lambda a, offset: a.hvc(STOP_VECTOR + offset // 128))


def vector_that_stopped(bench: Bench) -> int:
    """The offset of the vector in which the run has stopped."""
    line = bench.callbacks.of("el2")[-1]
    esr = line[0]
    assert isinstance(esr, int) and esr & 0xFFFF >= STOP_VECTOR, line
    return (esr & 0xFFFF - STOP_VECTOR) * 128


# -- translation tables --------------------------------------------------------------------------

USER, READ_ONLY, UXN, PXN, NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 54, 1 << 53, 1 << 11
XN = UXN | PXN
SCTLR_MMU = 1 << 26 | 1 << 12 | 1 << 2 | 1  # UCI, I, C, M
STAGE2_ALL = 3 << 6 | 0xF << 2  # S2AP, MemAttr
VTCR = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25


class Tables:
    """Tables of 4 KiB pages in the bench's RAM: 39 bits of address, level 1 at ``root``."""

    def __init__(self, bench: Bench, root: int, attributes: int = 0) -> None:
        self.bench, self.root, self._next, self._attributes = bench, root, root + 0x2000, attributes

    def identity(self, flags: int = 0) -> None:
        """All of RAM at its own address."""
        for page in range(RAM, RAM + RAM_SIZE, 4096):
            self.map(page, page, flags)

    def map(self, va: int, pa: int, flags: int = 0) -> None:
        self.set_entry(va, pa | flags | self._attributes | 1 << 10 | 3 << 8 | 3)

    def unmap(self, va: int) -> None:
        self.set_entry(va, 0)

    def set_entry(self, va: int, descriptor: int) -> None:
        self.bench.write64(self.entry_at(va), descriptor)

    def entry_at(self, va: int) -> int:
        """The address of the leaf descriptor of ``va``."""
        table = self.root + (0x1000 if va >> 55 & 1 else 0)
        for shift in (30, 21):
            at = table + (va >> shift & 511) * 8
            if not self.bench.read64(at):
                self.bench.write64(at, self._next | 3)
                self._next += 0x1000
                assert self._next <= self.root + 0x1_0000
            table = self.bench.read64(at) & ~0xFFF
        return table + (va >> 12 & 511) * 8


class Stage1(Tables):
    """Both halves: 39 bits of VA from 0 (TTBR0) and from the top (TTBR1)."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, TABLES)
        bench.set_system("MAIR_EL1", 0xFF)
        bench.set_system("TCR_EL1", 25 | 25 << 16 | 2 << 30 | 3 << 12 | 3 << 28 | 2 << 32)
        bench.set_system("TTBR0_EL1", TABLES)
        bench.set_system("TTBR1_EL1", TABLES + 0x1000)

    def enable(self) -> None:
        bench = self.bench
        bench.set_system("SCTLR_EL1", bench.system("SCTLR_EL1") | SCTLR_MMU)
        bench.engine.flush_tlb()


class Stage2(Tables):
    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, TABLES + 0x2_0000, STAGE2_ALL)

    def enable(self) -> None:
        engine = self.bench.engine
        engine.write_system(encoding_of("VTCR_EL2"), VTCR)
        engine.write_system(encoding_of("VTTBR_EL2"), self.root | 1 << 48)
        engine.set_hcr(HCR | 1)
        engine.flush_tlb()


def same(results: Sequence[Result]) -> None:
    """All results are equal; else the first field that differs, not a page of registers."""
    first = results[0]
    for other in results[1:]:
        lines = [
            (ours, theirs)
            for ours, theirs in zip(first[0], other[0], strict=False)
            if ours != theirs
        ]
        assert not lines and len(first[0]) == len(other[0])
        assert first[1] == other[1], "count"
        differing = {k: (first[2][k], other[2][k]) for k in first[2] if first[2][k] != other[2][k]}
        assert not differing
        assert other[3] == first[3], "RAM"
