"""The vGIC with its list registers beside a model of a GIC without list registers.

The model knows nothing of ap_lists, folding or maintenance: per interrupt a latch, a line, where it
is active; per CPU the running priorities. After every step both must signal the same, and an
acknowledge must give what the model allows. So every edge is delivered exactly once and in priority
order, a level is delivered while its line is high, and nothing active is lost: with one to four
list registers, both EOI modes, migration, re-routing and snapshots in between.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from vgic_rig import SPURIOUS, VTIMER, Rig

EDGES, LEVELS, SGIS = (40, 41, 42), (50, 51, 52), (1, 2)
SHARED = EDGES + LEVELS
PRIVATE = (*SGIS, VTIMER)
PRIORITIES = (0x20, 0x40, 0x40, 0x80, 0xA0, 0xF8)
MASKS = (0xF8, 0x80, 0x40)
VCPUS = 2


class ModelIrq:
    def __init__(self, intid: int, cpu: int) -> None:
        self.intid, self.target = intid, cpu
        self.latch = self.line = False
        self.enabled = intid in SGIS
        self.active_on: int | None = None
        self.priority = 0

    @property
    def pending(self) -> bool:
        return self.line if self.intid in (*LEVELS, VTIMER) else self.latch


class Model:
    def __init__(self) -> None:
        self.spis = {intid: ModelIrq(intid, 0) for intid in SHARED}
        self.private = {
            (cpu, intid): ModelIrq(intid, cpu) for cpu in range(VCPUS) for intid in PRIVATE
        }
        self.running: list[list[tuple[int, ModelIrq]]] = [[] for _ in range(VCPUS)]
        self.dropped: list[tuple[int, ModelIrq]] = []
        self.mask = [0xF8] * VCPUS
        self.on = True

    def irq(self, cpu: int, intid: int) -> ModelIrq:
        return self.spis[intid] if intid in self.spis else self.private[cpu, intid]

    def all(self) -> list[ModelIrq]:
        return [*self.spis.values(), *self.private.values()]

    def choices(self, cpu: int) -> list[ModelIrq]:
        """What an acknowledge on this CPU may return; empty: the spurious value."""
        ready = [
            irq for irq in self.all()
            if self.on and irq.enabled and irq.pending and irq.active_on is None and irq.target == cpu
        ]  # fmt: skip
        best = min((irq.priority for irq in ready), default=0xFF)
        limit = min([self.mask[cpu], *(priority for priority, _ in self.running[cpu])])
        return [irq for irq in ready if irq.priority == best] if best < limit else []


class VgicMachine(RuleBasedStateMachine):
    @initialize(list_registers=st.integers(1, 4), eoimode=st.integers(0, 1))
    def start(self, list_registers: int, eoimode: int) -> None:
        self.model, self.eoimode = Model(), eoimode
        self.rig = Rig(VCPUS, list_registers)
        for cpu in range(VCPUS):
            self.rig.icc(cpu, "CTLR", 2 * eoimode)
            self.wire_timer(cpu)
            self.rig.gic.enable(cpu, VTIMER, True)
        for intid in SHARED:
            self.rig.configure(intid, level=intid in LEVELS)

    def wire_timer(self, cpu: int) -> None:
        self.rig.vgic.map_phys_irq(cpu, VTIMER, VTIMER, lambda: self.model.irq(cpu, VTIMER).line)

    def host(self) -> None:
        """The host's interrupt handlers, then the run loop, until both are quiet."""
        rig = self.rig
        for _ in range(10):
            rig.settle()
            loud = [vcpu for vcpu, pe in rig.pe_of.items() if rig.gic.deliverable(pe)]
            if not loud:
                return
            for vcpu in loud:
                assert rig.gic.acknowledge(rig.pe_of[vcpu]) == VTIMER
                rig.vgic.inject(vcpu, VTIMER, True)
        raise AssertionError("the host never comes to rest")

    # Inputs

    @rule(intid=st.sampled_from(EDGES))
    def pulse(self, intid: int) -> None:
        self.rig.inject(intid)
        self.model.spis[intid].latch = True

    @rule(intid=st.sampled_from(LEVELS), level=st.booleans())
    def drive(self, intid: int, level: bool) -> None:
        self.rig.inject(intid, level)
        self.model.spis[intid].line = level

    @rule(cpu=st.integers(0, 1), level=st.booleans())
    def timer(self, cpu: int, level: bool) -> None:
        self.model.irq(cpu, VTIMER).line = level
        self.rig.gic.set_line(self.rig.pe_of[cpu], VTIMER, level)

    @rule(sender=st.integers(0, 1), intid=st.sampled_from(SGIS), cpus=st.integers(1, 3))
    def sgi(self, sender: int, intid: int, cpus: int) -> None:
        self.rig.icc(sender, "SGI1R", cpus | intid << 24)
        for cpu in range(VCPUS):
            if cpus >> cpu & 1:
                self.model.irq(cpu, intid).latch = True

    # The distributor

    @rule(cpu=st.integers(0, 1), intid=st.sampled_from(SHARED + PRIVATE), on=st.booleans())
    def enable(self, cpu: int, intid: int, on: bool) -> None:
        self.rig.set_bit(0x100 if on else 0x180, intid, cpu)
        self.model.irq(cpu, intid).enabled = on

    @rule(
        cpu=st.integers(0, 1),
        intid=st.sampled_from(SHARED + PRIVATE),
        priority=st.sampled_from(PRIORITIES),
    )
    def prioritise(self, cpu: int, intid: int, priority: int) -> None:
        irq = self.model.irq(cpu, intid)
        if irq.active_on is None:  # of an active interrupt it would be UNPREDICTABLE
            self.rig.set_priority(intid, priority, cpu)
            irq.priority = priority

    @rule(intid=st.sampled_from(SHARED), cpu=st.integers(0, 1))
    def route(self, intid: int, cpu: int) -> None:
        self.rig.route(intid, cpu)
        self.model.spis[intid].target = cpu

    @rule(intid=st.sampled_from(EDGES), pend=st.booleans())
    def latch(self, intid: int, pend: bool) -> None:
        self.rig.set_bit(0x200 if pend else 0x280, intid)
        self.model.spis[intid].latch = pend

    @rule(on=st.booleans())
    def distributor(self, on: bool) -> None:
        self.rig.dist.write(0, 0, 4, 2 * on)
        self.model.on = on

    @rule(cpu=st.integers(0, 1), intid=st.sampled_from(SHARED + PRIVATE))
    def inspect(self, cpu: int, intid: int) -> None:
        irq = self.model.irq(cpu, intid)
        assert self.rig.pending(intid, cpu) == irq.pending
        assert self.rig.active(intid, cpu) == (irq.active_on is not None)

    # The guests

    @rule(cpu=st.integers(0, 1))
    def acknowledge(self, cpu: int) -> None:
        choices = self.model.choices(cpu)
        intid = self.rig.ack(cpu)
        assert intid in ([irq.intid for irq in choices] or [SPURIOUS])
        if choices:
            irq = self.model.irq(cpu, intid)
            irq.latch, irq.active_on = False, cpu
            self.model.running[cpu].append((irq.priority, irq))

    @precondition(lambda self: any(self.model.running))
    @rule(cpu=st.integers(0, 1))
    def end(self, cpu: int) -> None:
        cpu = cpu if self.model.running[cpu] else 1 - cpu
        _, irq = self.model.running[cpu].pop()
        if self.eoimode:
            self.model.dropped.append((cpu, irq))
        else:
            irq.active_on = None
        self.rig.eoi(irq.intid, cpu)

    @precondition(lambda self: self.model.dropped)
    @rule(data=st.data(), elsewhere=st.booleans())
    def deactivate(self, data: st.DataObject, elsewhere: bool) -> None:
        cpu, irq = self.model.dropped.pop(data.draw(st.integers(0, len(self.model.dropped) - 1)))
        irq.active_on = None
        self.rig.dir(irq.intid, 1 - cpu if elsewhere and irq.intid in SHARED else cpu)

    @rule(cpu=st.integers(0, 1), mask=st.sampled_from(MASKS))
    def set_mask(self, cpu: int, mask: int) -> None:
        self.rig.icc(cpu, "PMR", mask)
        self.model.mask[cpu] = mask

    # The host moves things around

    @rule()
    def swap_cpus(self) -> None:
        """Both vCPUs change PEs; what the timer code does with the host's interrupt is done
        here."""
        rig, places = self.rig, dict(self.rig.pe_of)
        for vcpu, pe in places.items():
            rig.put(vcpu)
            rig.gic.set_line(pe, VTIMER, False)
            rig.gic.set_active(pe, VTIMER, False)
        for vcpu, pe in places.items():
            line = self.model.irq(vcpu, VTIMER).line
            rig.vgic.inject(vcpu, VTIMER, line)
            rig.load(vcpu, 1 - pe)
            rig.gic.set_active(1 - pe, VTIMER, rig.vgic.is_active(vcpu, VTIMER) or line)
            rig.gic.set_line(1 - pe, VTIMER, line)

    @rule()
    def snapshot(self) -> None:
        self.rig = self.rig.clone()
        for cpu in range(VCPUS):
            self.wire_timer(cpu)

    @invariant()
    def same_signal(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.host()
        for cpu in range(VCPUS):
            assert self.rig.vif(cpu).virq == bool(self.model.choices(cpu)), f"vCPU {cpu}"
            assert not self.rig.vif(cpu).maintenance


VgicMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestVgicAgainstAModel = VgicMachine.TestCase
