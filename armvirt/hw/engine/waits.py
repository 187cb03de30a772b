"""Skip the polled waits of one engine. A polled wait is a loop of the guest that only polls a
counter, a timer's ISTATUS or RAM.

The hooks of both engines detect a block that executes again and again at equal distances in
instructions. They also detect such an MRS of a counter or of ISTATUS. The hooks then call
`PolledWaits.ask`, which tries to prove with `armvirt.hw.polling` that iterations of the loop
(*rounds*) may be skipped.
"""

from __future__ import annotations

import ctypes as C

from armvirt.arch.named import MDSCR_EL1, MDSCR_MDE, MDSCR_SS, SCTLR_E0E, SCTLR_EE, SCTLR_EL1
from armvirt.arch.pstate import PSTATE_EL, PSTATE_NZCV_SHIFT
from armvirt.arch.timer import (
    CNTKCTL_EL1,
    CNTV_CTL_EL0,
    CNTVCT_EL0,
    EL0_ENABLES,
    NS_PER_SECOND,
)
from armvirt.arch.translation import PAGE_SIZE
from armvirt.hw.clock import NEVER
from armvirt.hw.engine import abi
from armvirt.hw.engine.callbacks import PeCallbacks
from armvirt.hw.engine.core import Core
from armvirt.hw.engine.state import EVENTS, PLAN_LENGTH, PLANS, WAIT_RECORD, EngineState, Stat
from armvirt.hw.polling import FEWEST_ROUNDS
from armvirt.hw.polling.flags import UndecidedError
from armvirt.hw.polling.loop import Path, evaluate, rounds_alike, trace
from armvirt.hw.polling.round import Cell, RefusedError, Start

LONGEST_SKIP = 1 << 40
"""The maximum number of instructions that are skipped at once. A wait that is longer needs several
skips. The engine handles requests from outside the guest, such as a request to stop, only between
two skips. Therefore a skip must not be too long."""

LONGEST_PACED_SKIP_NS = 10_000_000
"""The maximum virtual time in ns that is skipped in one step while skips are paced (on_skip)."""

PATHS = 256  # remembered loops
STEPS_AND_BREAKPOINTS = MDSCR_SS | MDSCR_MDE

_REGISTERS = [abi.x_register(n) for n in range(31)] + [abi.R_SP]


class _Around:
    """The registers and memory of the engine as inputs of one proof
    (`armvirt.hw.polling.round.Surroundings`)."""

    def __init__(self, core: Core, callbacks: PeCallbacks, at_el0: bool) -> None:
        self.core, self.callbacks, self._at_el0 = core, callbacks, at_el0
        self._pages: dict[tuple[int, int], int | None] = {}
        self._values: dict[Cell, int] = {}
        self._comparators: dict[int, tuple[int, int] | None] = {}

    def _page(self, page: int, kind: int) -> int | None:
        """Translate the virtual address of a page. ``kind`` is the access: PROT_READ, PROT_WRITE or
        PROT_EXEC. Returns None if the guest may not access the page in this way."""
        key = page, kind
        if key not in self._pages:
            core, box = self.core, C.c_uint64()
            failed = core.lib.uc_vmem_translate(core.uc, page, kind, C.byref(box))
            self._pages[key] = None if failed else box.value
        return self._pages[key]

    def _physical(self, address: int, kind: int) -> int | None:
        page = self._page(address & -PAGE_SIZE, kind)
        return None if page is None else page | address & PAGE_SIZE - 1

    def word(self, pc: int) -> tuple[int, int] | None:
        physical = None if pc & 3 else self._physical(pc, abi.PROT_EXEC)
        return None if physical is None else (self.value(Cell(physical, 4)), physical)

    def cell(self, address: int, size: int, *, write: bool) -> Cell | None:
        physical = self._physical(address, abi.PROT_READ)
        if physical is None or (write and self._physical(address, abi.PROT_WRITE) != physical):
            return None
        return Cell(physical, size)

    def value(self, cell: Cell) -> int:
        if cell not in self._values:
            data = self.core.read_physical(cell.address, cell.size)
            self._values[cell] = int.from_bytes(data, "little")
        return self._values[cell]

    def _timer(self, register: int) -> tuple[int, int] | None:
        if register not in self._comparators:
            self._comparators[register] = self.callbacks.comparator(register)
        return self._comparators[register]

    def readable(self, register: int) -> bool:
        if self._at_el0 and not self.core.read_system(CNTKCTL_EL1) & EL0_ENABLES[register]:
            return False
        return self._timer(register) is not None

    def comparator(self, register: int) -> tuple[int, int]:
        timer = self._timer(register)
        if timer is None:
            raise RefusedError("the timer cannot be read")
        return timer

    def ticks(self, register: int, count: int) -> int:
        state = self.core.state
        is_virtual = register in (CNTVCT_EL0, CNTV_CTL_EL0)
        ns = state.ns_base + (count - state.count_base) * state.ns_per_insn
        offset = state.cntvoff if is_virtual else state.cntpoff
        return state.counter_start + ns * state.frequency // NS_PER_SECOND - offset


class PolledWaits:
    """Finds and skips the polled waits of one engine. For each loop it keeps the path, by the PC at
    which the loop starts. A path is the sequence of instructions in one iteration. If ``keeps`` is
    True, each proved path is also stored in state.plans. The native engine then uses the stored
    path to prove later waits without Python."""

    def __init__(self, keeps: bool) -> None:
        self._keeps = keeps
        self._paths: dict[int, Path] = {}
        self._ids = (C.c_int * len(_REGISTERS))(*_REGISTERS)
        self._registers = (C.c_uint64 * len(_REGISTERS))()
        at = C.addressof(self._registers)
        self._pointers = (C.c_void_p * len(_REGISTERS))(
            *(at + 8 * n for n in range(len(_REGISTERS)))
        )

    def __repr__(self) -> str:
        return f"<PolledWaits: {len(self._paths)} loops>"

    def ask(self, core: Core, callbacks: PeCallbacks) -> int:
        """Find how many iterations of the loop at state.pc have no effect, and skip them.

        state.count is the instruction count before the instruction at state.pc. On return
        state.value is the number of skipped instructions, which the engine adds to its count. This
        number is a multiple of the length of an iteration. At least one more iteration fits between
        the skipped iterations and the next deadline. Returns 1 if the loop cannot be skipped.
        Returns 0 if iterations were skipped, or if the deadline is too near.
        """
        core.state.value = 0
        try:
            return int(self._skip(core, callbacks))
        except RefusedError:
            return 1

    def _skip(self, core: Core, callbacks: PeCallbacks) -> bool:
        """Skip iterations of the loop at state.pc, and set state.value as described in `ask`.
        Returns True if too few iterations have no effect. Returns False if iterations were skipped,
        or if the deadline is too near. Raises RefusedError if the loop cannot be skipped."""
        state, pstate = core.state, core.pstate
        pc, count = state.pc, state.count
        stops = core.read_system(MDSCR_EL1) & STEPS_AND_BREAKPOINTS
        if stops or core.read_system(SCTLR_EL1) & (SCTLR_EE | SCTLR_E0E):
            raise RefusedError("single steps, breakpoints, or big-endian data")
        start = Start(pc, count, self._read_registers(core), pstate >> PSTATE_NZCV_SHIFT)
        around = _Around(core, callbacks, not pstate & PSTATE_EL)
        path = self._path(start, around)
        longest = LONGEST_PACED_SKIP_NS // state.ns_per_insn if state.paced else LONGEST_SKIP
        most = self._most(state, path, count, longest)
        if most < FEWEST_ROUNDS:
            return False
        rounds = rounds_alike(path, start, around, most) - 1
        if rounds < 1:
            return True
        state.value = rounds * path.length
        state.skipped += state.value
        state.stats[Stat.WAIT] += 1
        _record(state, pc, rounds, path.length)
        if self._keeps and path.length <= PLAN_LENGTH:
            self._keep(state, path)
        return False

    def _keep(self, state: EngineState, path: Path) -> None:
        """Store the path in state.plans. The native engine then proves later waits on this path
        without Python."""
        plan = state.plans[path.code[0][0] >> 2 & PLANS - 1]
        for n, (pc, word, physical) in enumerate(path.code):
            plan.address[n], plan.word[n], plan.physical[n] = pc, word, physical
        plan.pc, plan.length = path.code[0][0], path.length
        plan.carried = sum(1 << n for n in path.carried)
        plan.keeps_flags, plan.counts, plan.yields = path.keeps_flags, path.counts, path.yields

    def _read_registers(self, core: Core) -> tuple[int, ...]:
        core.lib.uc_reg_read_batch(core.uc, self._ids, self._pointers, len(_REGISTERS))
        return tuple(self._registers)

    def _path(self, start: Start, around: _Around) -> Path:
        """Return the path of the next iteration: the sequence of its instructions. The path of an
        earlier wait at this PC is returned if its code is unchanged and the next iteration follows
        this path. Otherwise the result is a new path."""
        path = self._paths.get(start.pc)
        if path is not None and all(around.word(pc) == (w, at) for pc, w, at in path.code):
            try:
                evaluate(path, start, around, 1)
            except (RefusedError, UndecidedError):
                pass
            else:
                return path
        if len(self._paths) >= PATHS:
            self._paths.clear()
        self._paths[start.pc] = path = trace(start, around)
        return path

    def _most(self, state: EngineState, path: Path, count: int, longest: int) -> int:
        """Return how many iterations fit before the next deadline, and into ``longest``
        instructions. Raises RefusedError if the run has no deadline and the loop reads no counter,
        because nothing would end the loop."""
        if state.deadline == NEVER and not path.counts:
            raise RefusedError("nothing will end this loop")
        limit = min(state.deadline, count + longest)
        if path.yields:
            limit = min(limit, state.yield_at)
        return (limit - count) // path.length


def _record(state: EngineState, pc: int, rounds: int, length: int) -> None:
    """Record for the trace that ``rounds`` iterations of the loop at ``pc`` were skipped.
    ``length`` is the number of instructions of an iteration. The first skipped iteration begins at
    the instruction count state.count."""
    if not state.trace or state.events_n == EVENTS:
        return
    event = state.events[state.events_n]
    event.what, event.count, event.elr = WAIT_RECORD, state.count, pc
    event.target, event.esr = rounds, length
    event.ns = state.ns_base + (state.count - state.count_base) * state.ns_per_insn
    state.events_n += 1
