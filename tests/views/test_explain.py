"""`Machine.explain` and `Machine.gic` are right at any moment, without a trace of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from armvirt.errors import UserError
from armvirt.events import Event, Stamp
from armvirt.machine import Machine
from armvirt.views.explain import Explanation, LastWriters
from armvirt.views.gic import GicView

VTIMER = 27


def stopped(name: str, ns: int | None = None, **options: object) -> Machine:
    machine = Machine(name, sinks=[LastWriters()], **options)  # type: ignore[arg-type]
    if ns is None:
        machine.run()
    else:
        assert machine.run_until(ns=ns) is None
    return machine


@pytest.fixture
def broken() -> Iterator[Machine]:
    with stopped("wfi-forever") as machine:
        yield machine


def test_the_forgotten_enable(broken: Machine) -> None:
    found = broken.explain(VTIMER)
    held = found.held
    assert held is not None and held.station == "enable" and held.written == "never"
    assert found.verdict == (
        "INTID 27 (vtimer) is not taken by vCPU 0: GICR_ISENABLER0 bit 27 is 0 (never written). "
        "To change it: write 1 to bit 27 of GICR_ISENABLER0 (GICR+0x10100)."
    )
    assert [step.station for step in found.steps if step.passed][:2] == ["timer", "pending"]


def test_following_the_advice(broken: Machine) -> None:
    """The guest's vCPU wakes from its WFI and takes the interrupt."""
    fix = next(finding for finding in broken.board.vm.diagnose(0, VTIMER) if not finding.passed).fix
    assert fix is not None and fix.register.frame == "GICR"
    _, redistributor, *_ = broken.board.vm.vgic_of().mmio_frames()
    redistributor.frame.write(0, fix.register.offset, fix.register.size, fix.value)
    broken._runner.result = None
    broken.run_until(ns=broken.ns + 1)
    assert broken.explain(VTIMER).state == "entered"


class Tick(NamedTuple):
    """The first tick of vtimer-tick, in ns: CVAL is written, fires, is taken, acknowledged, CVAL is
    moved, it ends."""

    program: int
    fire: int
    taken: int
    ack: int
    lower: int
    eoi: int


@pytest.fixture(scope="module")
def tick() -> Tick:
    times: dict[str, int] = {}

    def listen(stamp: Stamp, event: Event) -> None:
        name = f"{event.kind} {getattr(event, 'what', getattr(event, 'level', getattr(event, 'register', '')))}"
        times.setdefault(name, stamp.ns)

    with Machine("vtimer-tick", sinks=[listen], trace_hash=False) as machine:
        machine.run_until(ns=1_500_000)
    names = (
        "timer-write cval",
        "timer-line 1",
        "exception irq",
        "ack ",
        "timer-line 0",
        "eoi EOIR1",
    )
    return Tick(*(times[name] for name in names))


def text_at(name: str, ns: int, intid: int = VTIMER) -> Explanation:
    with stopped(name, ns) as machine:
        return machine.explain(intid)


def test_the_timer_that_is_not_due(tick: Tick) -> None:
    found = text_at("vtimer-tick", tick.fire - 312_400)
    held = found.held
    assert (
        held is not None and held.station == "timer" and "the timer fires in 312.4 us" in held.text
    )
    assert held.written.startswith(f"{tick.program:,} ns, virtual_set_cval")
    assert f"virtual_set_cval) at {tick.program:,} ns, value 0x" in found.verdict
    assert "wait 312.4 us, or write a lower value to CNTV_CVAL_EL0" in found.verdict


def test_through_a_handler(tick: Tick) -> None:
    for ns, state, part in (
        (tick.taken + 1, "entered", f"PSTATE.I is 1: EL1 masks it: an interrupt was taken at {tick.taken:,} ns"),
        (tick.ack, "entered", "its handler reads IAR, which will give it"),
        (tick.ack + 1, "handled", f"the guest took it and has not ended it (taken at {tick.ack:,} ns by 0x"),
        (tick.lower + 1, "handled", "active, and not pending again (level, line low)"),
        (tick.lower + 1, "handled", f"has not ended it (taken at {tick.ack:,} ns by 0x"),
        (tick.eoi, "handled", "end its handler with a write of 27 to ICC_EOIR1_EL1"),
        (tick.eoi + 2, "waiting", "is not taken by vCPU 0: the timer fires in 999."),
    ):  # fmt: skip
        found = text_at("vtimer-tick", ns)
        assert found.state == state and part in found.verdict, ns


def test_every_instruction_of_a_tick(tick: Tick) -> None:
    """Waiting, entered, handled, waiting again, and no state twice."""
    states = []
    with stopped("vtimer-tick", tick.fire - 3) as machine:
        while machine.ns < tick.eoi + 10:
            states.append(machine.explain(VTIMER).state)
            machine.run_until(ns=machine.ns + 1)
    changes = [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]
    assert changes == ["waiting", "entered", "handled", "waiting"]


def test_explaining_leaves_no_trace(tick: Tick) -> None:
    """At many moments, also within the handler and with several CPUs: state and hash are what they
    would be."""
    for name in ("vtimer-tick", "sgi-smp"):
        with Machine(name) as free, Machine(name, sinks=[LastWriters()]) as watched:
            for ns in (
                50_000,
                100_000,
                tick.fire,
                tick.taken,
                tick.taken + 1,
                tick.ack + 1,
                tick.lower + 1,
            ):
                if watched.run_until(ns=ns) is not None:
                    break
                before = watched.state()
                for intid in (0, VTIMER, 33):
                    str(watched.explain(intid, versus=30))
                str(watched.gic)
                assert watched.state() == before
            limit = 3_000_000
            assert (
                watched.run(max_time_ns=limit).trace_hash == free.run(max_time_ns=limit).trace_hash
            )


def test_without_a_recorder_nobody_is_named() -> None:
    with Machine("wfi-forever") as machine:
        machine.run()
        found = machine.explain(VTIMER)
        assert all(step.written == "" for step in found.steps) and "last written" not in str(found)


def test_versus(tick: Tick) -> None:
    with stopped("vtimer-tick", tick.ack + 1) as machine:
        found = machine.explain(33, versus=VTIMER)
        assert (
            found.versus == "Versus INTID 27 (vtimer): "
            "INTID 33 (uart) is held: not pending (edge): its source never fired, or it was served."
        )


def test_which_vcpu_is_meant() -> None:
    with stopped("sgi-smp", 100_000) as machine:
        assert machine.explain(0).vcpu == 1, "the SGI is pending there"
        assert machine.explain(33).vcpu == 0 and machine.explain(33, vcpu=1).vcpu == 1
        held = machine.explain(33, vcpu=1).held
        assert held is not None


@pytest.mark.parametrize(
    ("intid", "vcpu", "text"),
    [
        (
            5000,
            None,
            "INTID 5000 does not exist: this GIC has SGIs 0-15, PPIs 16-31, SPIs 32-287, LPIs 8192-65535",
        ),
        (65536, None, "INTID 65536 does not exist"),
        (1020, None, "INTID 1020 does not exist"),
        (27, 3, "CPU 3 does not exist: this machine has 1, counted from 0"),
    ],
)
def test_what_does_not_exist(intid: int, vcpu: int | None, text: str) -> None:
    with Machine("hello") as machine, pytest.raises(UserError) as caught:
        machine.explain(intid, vcpu)
    assert text in str(caught.value)


@pytest.mark.parametrize(("gic", "why"), [(3, "there is no ITS"), (2, "a GICv2 has none")])
def test_without_lpis(gic: int, why: str) -> None:
    with (
        Machine("hello", gic=gic, its=False) as machine,
        pytest.raises(UserError, match=f"; no LPIs, for {why}"),
    ):
        machine.explain(8192)


def test_an_lpi_and_the_commands_behind_it() -> None:
    """From an LPI that nobody has mapped to one whose interrupt came; then its event is taken
    away."""
    with stopped("gic-lpi", 300_000) as machine:
        before = machine.explain(8193)
        assert {step.station: step.passed for step in before.steps} == {
            "LPIs": False,
            "ITS": False,
            "event": False,
        }
        assert before.steps[-1].written == "never mapped"
        assert machine.run_until(ns=560_000) is None
        steps = {step.station: step for step in machine.explain(8193).steps}
        assert steps["event"].text == "translated from device 0, event 1"
        assert steps["event"].written.startswith("MAPTI at ") and steps[
            "enable"
        ].written.startswith("INV at ")
        assert not steps["pending"].passed and re.match(
            r"raised at 55\d,", steps["pending"].written
        )
        machine.run()
        held = machine.explain(8193).held
        assert (
            held is not None and held.station == "event" and held.writer.startswith("DISCARD at ")
        )
        assert " by 0x" in held.writer


def test_what_else_is_in_its_way() -> None:
    """The first that holds it is not all that is missing; what follows from it is not said
    again."""
    with stopped("psci", 20_000) as machine:
        found = machine.explain(5, vcpu=1)
        assert found.held is not None and found.held.station == "pending"
        assert found.verdict.endswith(
            " Also in its way: distributor, vCPU, group enable, mask, PSTATE."
        )
        assert found.data()["also"] == found.also
    with stopped("wfi-forever") as machine:
        assert machine.explain(30).also == ["enable"]
        assert machine.explain(VTIMER).also == [] and "Also" not in machine.explain(VTIMER).verdict


def test_a_cpu_that_is_off() -> None:
    """Whether it has the physical CPU is no question then."""
    with stopped("sgi-spi") as machine:
        steps = {step.station: step for step in machine.explain(3).steps}
        assert steps["vCPU"].text == "vCPU 0 is powered off" and "loaded" not in steps


def test_plain_data(broken: Machine) -> None:
    data = json.loads(json.dumps(broken.explain(VTIMER).data()))
    assert (
        data["held"] == "enable"
        and data["stations"][2]["register"] == "GICR_ISENABLER0 (GICR+0x10100)"
    )
    assert json.loads(json.dumps(broken.gic.data()))["interrupts"] == broken.gic.rows()


# -- the interrupt controller --


def test_the_gic_in_a_handler(tick: Tick) -> None:
    with stopped("vtimer-tick", tick.ack + 1) as machine:
        view = machine.gic
        (timer,) = (row for row in view.rows() if row["INTID"] == VTIMER)
        assert (timer["enabled"], timer["pending"], timer["active"], timer["in"]) == (
            True,
            True,
            True,
            "LR0 of vCPU 0",
        )
        (lr,) = view.list_registers
        assert (lr["INTID"], lr["state"], lr["pINTID"]) == (VTIMER, "active", 27)
        (interface,) = view.interfaces
        assert (interface["RPR"], interface["PMR"], interface["AP1R"]) == (
            "0xa0",
            "0xf8",
            "0x100000",
        )
        assert "group 1 on" in str(view) and "LR0 of vCPU 0" in str(view)


def test_all_interrupts_and_one_cpu() -> None:
    with stopped("sgi-smp", 100_000) as machine:
        assert len(GicView(machine, everything=True).rows()) == 2 * 32 + 256
        assert {row["vcpu"] for row in GicView(machine, 1).interfaces} == {1}
        with pytest.raises(UserError, match="CPU 2 does not exist"):
            GicView(machine, 2)


# -- GICv2 --


def test_a_gicv2_has_other_registers() -> None:
    with stopped("wfi-forever", gic=2) as machine:
        found = machine.explain(VTIMER)
        assert found.verdict.endswith(
            "To change it: write 1 to bit 27 of GICD_ISENABLER0 (GICD+0x100)."
        )
        by_name = {step.station: step for step in found.steps}
        assert by_name["mask"].register == "GICC_PMR (GICC+0x4)" and by_name[
            "mask"
        ].written.endswith(": 0xff")
        assert by_name["group"].text == "group 0: signalled as IRQ"
        assert "GICv2 at" in str(machine.gic) and "redistributors" not in str(machine.gic)


def test_the_handler_of_a_gicv2(tick: Tick) -> None:
    with stopped("vtimer-tick", tick.fire, gic=2) as machine:
        assert machine.symbols is not None
        assert machine.run_until(pc=machine.symbols.address_of("tick")) is None
        found = machine.explain(VTIMER)
        assert found.state == "handled" and found.verdict.endswith(
            "a write of 27 to GICC_EOIR (GICC+0x10)."
        )
