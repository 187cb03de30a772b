"""One round of a loop, evaluated for all its rounds in an interval of time.

A round starts at an address with the registers of that moment, and ends at the first return to the
address. `trace` follows the next round and gives its path; `rounds_alike` finds how many rounds take
the same path without any effect but time.

The proof: each counter read of a round is the interval of its values in all the rounds, so each
register of the `Round` is an interval with the value of every round. Every branch must go the same
way for the whole interval. What a round reads before it writes it (registers, NZCV, memory) must have
at the end the value of the start. Then every round starts like the first one, but for what holds a
count of the round before and is written before it is read.
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
    """The path of one round: the effect of each instruction and the next PC that it gives.

    ``carried`` are registers that a round reads before it writes them, and writes. ``code`` are
    the instructions, as (virtual address, word, physical address).
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
        """The instructions of a round."""
        return len(self.code)

    def close(self, steps: list[Step]) -> None:
        """The path is complete."""
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
        """`RefusedError` if the next round would not start like this one."""
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
    """The rounds that are evaluated at once: ``number`` rounds of ``length`` instructions."""

    number: int
    length: int


class _Evaluation:
    """How a `Step` that reads a counter gets its interval."""

    __slots__ = ("around", "rounds", "start")

    def __init__(self, start: Start, around: Surroundings, rounds: Rounds) -> None:
        self.start, self.around, self.rounds = start, around, rounds

    def read(self, register: int, index: int) -> Interval:
        """The values that instruction ``index`` of the rounds reads from a counter or a control
        register."""
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
    """The path of the round that begins at ``start``. `RefusedError` if it cannot be followed, or
    has an effect."""
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
    """A round for several rounds at once."""

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
    """Prove that ``number`` rounds from ``start`` on take the path and have no effect.

    `RefusedError` if they do not; `UndecidedError` if some may and some may not.
    """
    now = _Reading(start, around, Rounds(number, path.length))
    for run, following in path.effects:
        if run(now) != following:
            raise RefusedError("the round takes another path")
    path.check(now)


def rounds_alike(path: Path, start: Start, around: Surroundings, most: int) -> int:
    """How many rounds, ``most`` at most, take the path from ``start`` on and have no effect; 0 if
    they are too few. Not always the largest possible number."""
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
    """The next number of rounds to try: where the compared values reach the threshold, if they grow
    or shrink evenly, else half of ``number``. ``before`` are the values of the last attempt, whose
    first one (of round 0) is the same."""
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
