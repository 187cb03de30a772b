"""Evaluate a polling loop: prove that its next N iterations take the same path and have no effect.

An iteration (a *round*) starts at an address with the present registers, and ends when the PC
returns to this address. `trace` follows the next round and returns its path. `rounds_alike` finds
how many rounds take this path and have no effect.

The proof evaluates all N rounds at once. Each read of a counter gives the interval of the values
that this read returns in the N rounds. Therefore each register of the `Round` is an interval that
contains the value of this register in every round. Each branch must go the same way for the whole
interval.

Every round must start like the first round. What this requires of a register, of NZCV and of memory
depends on the order of the accesses in a round:

* The round reads the old value and writes a new value later. The new value must be equal to the old
  value.
* The round writes before it reads. The value at the end of the round may differ from the value at
  the start. For example, it may be a counter value.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.insn import INSTRUCTION_BYTES
from armvirt.arch.timer import CNTP_CTL_EL0, CNTV_CTL_EL0, CTL_ENABLE, CTL_ISTATUS
from armvirt.hw.polling import FEWEST_ROUNDS, LONGEST_ROUND
from armvirt.hw.polling import flags as fl
from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.decode import NZCV, Run, Step, decode
from armvirt.hw.polling.flags import UndecidedError
from armvirt.hw.polling.interval import Interval
from armvirt.hw.polling.round import RefusedError, Round, Start, Surroundings
from armvirt.records import NamedTuple

ATTEMPTS = 40  # evaluations of a round in the search for the number of rounds
_UNBOUNDED = (iv.top(32), iv.ANYTHING)
_CONTROLS = (CNTV_CTL_EL0, CNTP_CTL_EL0)


class Path:
    """The path of one iteration of a loop: its instructions, and the branches that are taken.

    ``effects`` has a pair for each instruction: the function that computes its effect, and the next
    PC. The next PC is None if the next instruction follows in memory. ``code`` has (virtual
    address, instruction word, physical address) of each instruction. ``carried`` has the registers
    that an iteration first reads and later writes. ``keeps_flags`` is True if an iteration first
    reads and later writes NZCV. ``counts`` is True if the path reads a counter or a timer control
    register. ``yields`` is True if the path contains YIELD.
    """

    __slots__ = ("_lines", "carried", "code", "counts", "effects", "keeps_flags", "yields")

    def __init__(self) -> None:
        self.effects: list[tuple[Run, int | None]] = []
        self.code: list[tuple[int, int, int]] = []
        self.carried: tuple[int, ...] = ()
        self.keeps_flags = self.counts = self.yields = False
        self._lines: set[int] = set()

    @property
    def length(self) -> int:
        """The number of instructions in one iteration."""
        return len(self.code)

    def close(self, steps: list[Step]) -> None:
        """Compute the other attributes of the path after its last instruction was added. ``steps``
        are the decoded instructions of the path."""
        read: set[int] = set()
        written: set[int] = set()
        for step in steps:
            read.update(n for n in step.reads if n not in written)
            written.update(step.writes)
        self.keeps_flags = NZCV in read and NZCV in written
        self.carried = tuple(sorted(read & written - {NZCV}))
        self.counts = any(step.system for step in steps)
        self.yields = any(step.yields for step in steps)
        self._lines = {physical for _, _, physical in self.code}

    def check(self, end: Round) -> None:
        """Raise `RefusedError` if the next iteration would not start with the same state as this
        iteration, or if this iteration stores to the code of the loop. ``end`` is the state at the
        end of this iteration."""
        start = end.start
        for n in self.carried:
            value = start.registers[31 if n > 30 else n]  # index 32 of a round is SP
            if end.x[n] != (value, value):
                raise RefusedError(f"the loop carries register {n}")
        if self.keeps_flags and fl.number(end.flags) != start.nzcv:
            raise RefusedError("the loop carries NZCV")
        end.check_memory()
        for address, size in end.stored:
            if not self._lines.isdisjoint((address & -4, address + size - 1 & -4)):
                raise RefusedError("the loop stores to its code")


class Rounds(NamedTuple):
    """The iterations that are evaluated at once: ``number`` iterations of ``length`` instructions
    each."""

    number: int
    length: int


class _Evaluation:
    """Computes what the MRS instructions of a loop read in the evaluated iterations. Each of these
    instructions reads a counter or a timer control register."""

    __slots__ = ("around", "rounds", "start")

    def __init__(self, start: Start, around: Surroundings, rounds: Rounds) -> None:
        self.start, self.around, self.rounds = start, around, rounds

    def read(self, register: int, index: int) -> Interval:
        """Return the interval of the values that one MRS reads in all evaluated iterations.
        ``register`` is the packed encoding of a counter or of a timer control register. ``index``
        is the position of the MRS in the iteration; the first instruction has position 0."""
        first = self.start.retired + index
        last = first + (self.rounds.number - 1) * self.rounds.length
        ticks = self.around.ticks
        count = iv.wrap(ticks(register, first), ticks(register, last), 64)
        return _control(self.around, register, count) if register in _CONTROLS else count


def _control(around: Surroundings, register: int, count: Interval) -> Interval:
    ctl, cval = around.comparator(register)
    if not ctl & CTL_ENABLE or count[1] < cval:
        return ctl, ctl
    if count[0] < cval:
        raise UndecidedError(count, cval)
    return ctl | CTL_ISTATUS, ctl | CTL_ISTATUS


def trace(start: Start, around: Surroundings) -> Path:
    """Return the path of the iteration that begins at ``start``. Raises `RefusedError` if the
    iteration has an effect, or if its path cannot be determined."""
    path, steps = Path(), []
    now = Round(start, around)
    one = _Evaluation(start, around, Rounds(1, 0))
    pc = start.pc
    try:
        for index in range(LONGEST_ROUND):
            step = _step(path, pc, around)
            steps.append(step)
            if step.system:
                now.x[step.rd] = one.read(step.system, index)
            following = step.run(now)
            path.effects.append((step.run if not step.system else _reader(step, index), following))
            pc = pc + INSTRUCTION_BYTES if following is None else following
            if pc == start.pc:
                path.close(steps)
                path.check(now)
                return path
    except UndecidedError:
        raise RefusedError("a value is not known") from None
    raise RefusedError("the round is too long")


def _step(path: Path, pc: int, around: Surroundings) -> Step:
    found = around.word(pc)
    step = None if found is None else decode(found[0], pc)
    if found is None or step is None:
        raise RefusedError(f"the effect of the instruction at {pc:#x} is not known")
    if step.system and not around.readable(step.system):
        raise RefusedError("a counter cannot be read")
    path.code.append((pc, *found))
    return step


class _Reading(Round):
    """The state of several iterations that are evaluated at once, with the values of their counter
    reads."""

    __slots__ = ("evaluation",)

    def __init__(self, start: Start, around: Surroundings, rounds: Rounds) -> None:
        super().__init__(start, around)
        self.evaluation = _Evaluation(start, around, rounds)


def _reader(step: Step, index: int) -> Callable[[Round], None]:
    register, rd = step.system, step.rd

    def run(r: Round) -> None:
        assert isinstance(r, _Reading)
        r.x[rd] = r.evaluation.read(register, index)

    return run


def evaluate(path: Path, start: Start, around: Surroundings, number: int) -> None:
    """Prove that the next ``number`` iterations from ``start`` take ``path`` and have no effect.

    Raises `RefusedError` if an iteration takes another path or has an effect. Raises
    `UndecidedError` if a branch goes one way in some of the iterations and another way in others.
    """
    now = _Reading(start, around, Rounds(number, path.length))
    for run, following in path.effects:
        if run(now) != following:
            raise RefusedError("the round takes another path")
    path.check(now)


def rounds_alike(path: Path, start: Start, around: Surroundings, most: int) -> int:
    """Return a number of iterations, at most ``most``, that take ``path`` from ``start`` and have
    no effect. The result can be less than the largest such number. Returns 0 if the number is less
    than FEWEST_ROUNDS. Raises `RefusedError` if an iteration has an effect."""
    number = most
    before: Interval | None = None
    for attempt in range(ATTEMPTS):
        if number < FEWEST_ROUNDS:
            break
        try:
            evaluate(path, start, around, number)
        except UndecidedError as undecided:
            number = _fewer(undecided, before, number, attempt)
            before = undecided.values
        else:
            return number
    return 0


def _fewer(undecided: UndecidedError, before: Interval | None, number: int, attempt: int) -> int:
    """Return the next, smaller number of iterations to try, after the proof for ``number``
    iterations has raised ``undecided``. ``attempt`` is the number of earlier attempts.

    The proof compared an interval of values with a threshold. If the value increases or decreases
    by an equal amount in each iteration, the result is the number of iterations that end before the
    value reaches the threshold. Otherwise the result is half of ``number``.

    ``before`` is the interval of the compared values in the previous attempt, or None in the first
    attempt. The first iteration has the same value in both attempts. Therefore the value increases
    if the lower bounds of both intervals are equal, and decreases if the upper bounds are equal.
    """
    guess = 0
    if undecided.values is not None and undecided.values not in _UNBOUNDED:
        low, high = undecided.values
        grow = (undecided.threshold - 1 - low) * (number - 1) // (high - low)
        shrink = (high - undecided.threshold - 1) * (number - 1) // (high - low)
        if before is None:
            guess = max(grow, shrink)
        elif before[0] == low:
            guess = grow
        elif before[1] == high:
            guess = shrink
        if attempt > 2:
            guess -= guess // 16
    return guess if 0 < guess < number else number // 2
