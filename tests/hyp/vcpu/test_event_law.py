"""Random programs with WFE and SEV on one to four CPUs do exactly what the oracle says, wherever
they are stopped."""

from __future__ import annotations

import pytest
from conftest import sampled
from event_model import Model, Op
from hyp_tools import DATA, KINDS, NE, RAM, Asm, Rig
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from armvirt.hw.context import Context, ShareableDomain
from armvirt.hyp.kvm import Stop, StuckExit
from armvirt.hyp.vcpu import event_wait
from armvirt.hyp.vcpu.event_wait import EventWait

CPU_OFF = 0x8400_0002
GRANULES, VALUES = 2, 3
EL1H_MASKED = 0x3C5
NOP: Op = ("nop", 0, 0)

plain = st.sampled_from(["nop", "sev", "sevl", "wfe", "wfe", "eret", "clrex"])
memory = st.tuples(
    st.sampled_from(["ldxr", "str_", "stxr"]),
    st.integers(0, GRANULES - 1),
    st.integers(0, VALUES - 1),
)
single = st.one_of(
    plain.map(lambda name: (name, 0, 0)), memory, st.integers(1, 900).map(lambda n: ("work", n, 0))
)
granules, values = st.integers(0, GRANULES - 1), st.integers(0, VALUES - 1)
DRAIN = [("sevl", 0, 0), ("wfe", 0, 0)]
motifs = st.one_of(
    st.just([*DRAIN, ("wfe", 0, 0)]),
    granules.map(lambda g: [*DRAIN, ("ldxr", g, 0), ("wfe", 0, 0)]),
    st.tuples(granules, values).map(
        lambda gv: [("work", 900, 0), ("str_", *gv), ("work", 900, 0), ("work", 900, 0)]
    ),
    st.just([("work", 700, 0), ("sev", 0, 0), ("work", 900, 0)]),
)
steps = st.one_of(single.map(lambda op: [op]), motifs)
program = st.lists(steps, min_size=1, max_size=8).map(
    lambda parts: [op for part in parts for op in part]
)
programs = st.lists(program, min_size=1, max_size=4)


def assemble(ops: list[Op], base: int) -> tuple[Asm, list[Op]]:
    """The code, and what it is to the oracle: one entry for each instruction that retires."""
    a = Asm(base)
    for granule in range(GRANULES):
        a.mov(10 + granule, DATA + 64 * granule)
    for value in range(VALUES):
        a.mov(20 + value, value)
    a.mov(9, EL1H_MASKED)
    a.msr("SPSR_EL1", 9)
    seen: list[Op] = [NOP] * len(a.words)
    for n, (name, granule, value) in enumerate(ops):
        if name == "work":
            a.mov(8, granule)
            a.label(f"work{n}")
            a.subs_imm(8, 8, 1)
            a.b_cond(NE, f"work{n}")
            seen += [NOP] * (1 + 2 * granule)
            continue
        if name == "eret":
            a.adr(7, f"there{n}")
            a.msr("ELR_EL1", 7)
            a.eret()
            a.label(f"there{n}")
            seen += [NOP] * 2
        elif name == "ldxr":
            a.ldxr(6, 10 + granule)
        elif name == "str_":
            a.str_(20 + value, 10 + granule)
        elif name == "stxr":
            a.stxr(5, 20 + value, 10 + granule)
        else:
            getattr(a, name)()
        seen.append((name, granule, value))
    a.mov(0, CPU_OFF)
    a.hvc(0)
    return a, seen + [NOP] * 3


def start(kind: str, codes: list[Asm], quantum: int) -> Rig:
    rig = Rig(vcpus=len(codes), kind=kind, quantum_ns=quantum)
    for n, code in enumerate(codes):
        rig.start(code, n)
    return rig


def compare(kind: str, guests: list[list[Op]], quantum: int, stops: list[int]) -> None:
    """One guest beside the oracle; after each of ``stops`` ns it is stopped, saved, and loaded
    again."""
    built = [assemble(ops, RAM + 0x4000 * n) for n, ops in enumerate(guests)]
    model = Model([seen for _, seen in built], quantum)
    model.run()
    rig = start(kind, [code for code, _ in built], quantum)
    for ns in stops:
        if rig.run(rig.host.clock.now + ns) is not Stop.UNTIL:
            break
        rig.vm.load(rig.vm.state())
    end = rig.run()
    stuck = rig.end if rig.log else None
    assert (end is Stop.IDLE) == (model.stuck is None), (end, model.stuck)
    if model.stuck is not None:
        assert isinstance(stuck, StuckExit) and (stuck.cpu or 0) == model.stuck
    contexts = [vcpu.context for vcpu in rig.vcpus]
    assert [c.insns for c in contexts] == [c.at for c in model.cpus]
    assert rig.host.clock.now == model.now
    assert [c.event_register for c in contexts] == [c.event for c in model.cpus]
    assert [rig.word(DATA + 64 * g) for g in range(GRANULES)] == [
        model.memory.get(g, 0) for g in range(GRANULES)
    ]


stops = st.lists(st.integers(1, 3000), max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@given(guests=programs, quantum=st.sampled_from([1000, 1700, 100_000]), stops=stops)
@settings(max_examples=60, deadline=None)
def test_random_guests_beside_the_oracle(
    kind: str, guests: list[list[Op]], quantum: int, stops: list[int]
) -> None:
    compare(kind, guests, quantum, stops)


# -- bugs that the law has to find --


def deaf(context: Context, ns: int | None = None) -> None:
    """SEV sets the register, and wakes nobody."""
    context.engine.state.event_register = 1


def lossless(context: Context) -> None:
    """The loss of a monitor is no event."""
    context.engine.clear_exclusive()


def forgetful(context: Context, state: dict[str, object]) -> None:
    """The register does not come back."""
    LOAD(context, state)
    context.engine.state.event_register = 0


def blind(wait: EventWait) -> None:
    """Stores of others are not looked for."""


LOAD = Context.load
BUGS = {
    "SEV wakes nobody": (Context, "set_event", deaf),
    "a lost monitor is no event": (Context, "clear_exclusive", lossless),
    "the register is not saved": (Context, "load", forgetful),
    "stores are not seen": (EventWait, "turn_over", blind),
    "a monitor is never taken for lost": (EventWait, "take_for_lost", lambda wait: False),
    "SEV is for all but the last CPU": (
        ShareableDomain, "send_event",
        lambda domain, source, ns: [c.set_event(ns) for c in domain.contexts[:-1] if c is not source],
    ),
    "a WFE that completes leaves the register set": (Context, "take_event", lambda context, ns: None),
    "an event comes at once": (event_wait, "EVENT_NS", 0),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 4))
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, replacement = BUGS[bug]
    monkeypatch.setattr(owner, name, replacement)

    @given(guests=programs, quantum=st.sampled_from([1000, 1700, 100_000]), stops=stops)
    @settings(max_examples=600, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def search(guests: list[list[Op]], quantum: int, stops: list[int]) -> None:
        compare("native", guests, quantum, stops)

    with pytest.raises(AssertionError):
        search()
