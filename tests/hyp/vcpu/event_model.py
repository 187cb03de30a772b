"""An oracle of the event register of several CPUs. It executes one instruction at a time (DDI 0487
D1.6.1).

Where the architecture leaves it open, docs/architecture.md says what is done. It shares nothing
with the implementation. The CPUs take turns of ``quantum`` ns on one PE; an instruction takes 1 ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LATENCY, UNSEEN, RESCUES = 1000, 64, 64

Op = tuple[str, int, int]
"""(instruction, granule, value): the last two for loads and stores."""


@dataclass
class Cpu:
    """``waits``: in WFE; ``ready``: it could be given the PE."""

    program: list[Op]
    at: int = 0
    ready: bool = True
    waits: bool = False
    event: bool = True  # EL2 starts it by an exception return
    marked: tuple[int, int] | None = (
        None  # the granule that its monitor marks, and what was loaded from it
    )
    wake: int | None = None
    watched: int | None = None  # what the granule held when the wait began
    turns: int = 0
    others: int = 0

    @property
    def off(self) -> bool:
        return self.at == len(self.program)


@dataclass
class Model:
    """The machine. `run` drives it to its end, ``stuck`` is then the CPU that waits in vain (None:
    all are off)."""

    programs: list[list[Op]]
    quantum: int
    now: int = 0
    memory: dict[int, int] = field(default_factory=dict)
    stuck: int | None = None

    def __post_init__(self) -> None:
        self.cpus = [Cpu(program) for program in self.programs]
        self.current = self.loaded = -1
        self.last, self.turn_end, self.rescues = -1, 0, 0

    def run(self) -> None:
        while True:
            self._wake_due()
            self._schedule()
            if self.current >= 0 and self.cpus[self.current].ready:
                self._enter(self.cpus[self.current])
            elif due := [c.wake for c in self.cpus if c.wake is not None]:
                self.now = max(self.now, min(due))
            elif not self._rescue():
                self.stuck = next((n for n, c in enumerate(self.cpus) if c.waits), None)
                return

    # -- who runs --

    def _wake_due(self) -> None:
        for cpu in self.cpus:
            if cpu.wake is not None and cpu.wake <= self.now:
                cpu.wake, self.rescues = None, 0
                cpu.ready = not cpu.off

    def _schedule(self) -> None:
        current = self.cpus[self.current] if self.current >= 0 else None
        runs = current is not None and current.ready
        if runs and self.now < self.turn_end:
            return
        watched = self._look_at_granules()
        ready = [n for n, c in enumerate(self.cpus) if c.ready]
        alone = runs and ready == [self.current]
        if alone and not watched:
            return
        if runs:
            self.rescues = 0
        if ready:
            self.turn_end = self.now + self.quantum
        if ready and not alone:
            self.last = min([n for n in ready if n > self.last] or ready)
            self.current = self.last
            if self.loaded != self.current:
                self._load(self.cpus[self.current])
            self.loaded = self.current

    def _look_at_granules(self) -> bool:
        """At the end of a turn: whether somebody else still waits for a store."""
        watching = [
            c for n, c in enumerate(self.cpus) if c.watched is not None and n != self.current
        ]
        for cpu in watching:
            cpu.turns += 1
            assert cpu.marked is not None
            if self.memory.get(cpu.marked[0], 0) != cpu.watched or cpu.turns >= UNSEEN:
                self._lose(cpu)
        return any(c.watched is not None for c in watching)

    def _load(self, cpu: Cpu) -> None:
        if not cpu.waits and cpu.marked is not None:
            cpu.marked, cpu.event = None, True

    def _lose(self, cpu: Cpu) -> None:
        cpu.marked = cpu.watched = None
        cpu.event = True
        if not cpu.ready:
            cpu.ready, cpu.wake = True, None

    def _rescue(self) -> bool:
        lost = [c for c in self.cpus if c.watched is not None and self._by_others(c) != c.others]
        if self.rescues >= RESCUES or not lost:
            return False
        self.rescues += 1
        for cpu in lost:
            self._lose(cpu)
        return True

    def _by_others(self, cpu: Cpu) -> int:
        return sum(c.at for c in self.cpus) - cpu.at

    # -- what it does --

    def _enter(self, cpu: Cpu) -> None:
        if cpu.waits:
            if not cpu.event:
                cpu.ready = False
                return
            cpu.waits = cpu.event = False
            cpu.marked = cpu.watched = None
        name, granule, value = cpu.program[cpu.at]
        cpu.at += 1
        self.now += 1
        getattr(self, f"_{name}")(cpu, granule, value)
        if cpu.off:
            cpu.ready, cpu.wake = False, None

    def _nop(self, cpu: Cpu, granule: int, value: int) -> None:
        pass

    def _sevl(self, cpu: Cpu, granule: int, value: int) -> None:
        cpu.event = True

    def _sev(self, cpu: Cpu, granule: int, value: int) -> None:
        for each in self.cpus:
            each.event = True
            if each.waits and (each.wake is None or each.wake > self.now + LATENCY):
                each.wake = self.now + LATENCY

    def _eret(self, cpu: Cpu, granule: int, value: int) -> None:
        cpu.event, cpu.marked = True, None

    def _wfe(self, cpu: Cpu, granule: int, value: int) -> None:
        if cpu.event:
            cpu.event = False
            return
        cpu.waits, cpu.turns = True, 0
        if cpu.marked is not None:
            cpu.watched, cpu.others = self.memory.get(cpu.marked[0], 0), self._by_others(cpu)

    def _ldxr(self, cpu: Cpu, granule: int, value: int) -> None:
        cpu.marked = granule, self.memory.get(granule, 0)

    def _clrex(self, cpu: Cpu, granule: int, value: int) -> None:
        cpu.marked = None

    def _str_(self, cpu: Cpu, granule: int, value: int) -> None:
        self.memory[granule] = value

    def _stxr(self, cpu: Cpu, granule: int, value: int) -> None:
        if cpu.marked == (granule, self.memory.get(granule, 0)):
            self.memory[granule] = value
        cpu.marked = None
