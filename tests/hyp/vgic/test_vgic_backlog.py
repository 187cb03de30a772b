"""An access of the guest costs EL2 bounded work. What remains is done later, with the same result.

Work is counted here, not taken from `Backlog.steps`: LPIs that a job is applied to, and commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from its_rig import (
    BASER0,
    BASER1,
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEVICES,
    ENABLE,
    GICR_CTLR,
    GICR_INVALLR,
    GICR_SYNCR,
    ITTS,
    LPI,
    QUEUE,
    ItsRig,
)

from armvirt.arch import its as arch
from armvirt.arch.gic import GICR_CTLR_RWP
from armvirt.hyp.vgic import backlog, lpi
from armvirt.hyp.vgic.device import Ctrl, Group
from armvirt.hyp.vgic.its import commands as its_cmd
from armvirt.machine import Machine

VCPUS, DEVICES_MAPPED, EVENTS = 3, 3, 8
LIMIT = 4
Step = tuple[Any, ...]

CPU = st.integers(0, VCPUS - 1)
DEVICE, EVENT = st.integers(0, DEVICES_MAPPED - 1), st.integers(0, EVENTS - 1)
COMMAND = st.one_of(
    st.builds(lambda c, t, v: ("MAPC", {"icid": c, "rdbase": t, "valid": v}), CPU, CPU, st.sampled_from([1, 1, 0])),
    st.builds(lambda d, v: ("MAPD", {"device": d, "size": 3, "itt": ITTS, "valid": v}), DEVICE, st.integers(0, 1)),
    st.builds(
        lambda d, e, c: ("MAPTI", {"device": d, "event": e, "intid": LPI + d * EVENTS + e, "icid": c}),
        DEVICE, EVENT, CPU,
    ),
    st.builds(lambda c: ("INVALL", {"icid": c}), CPU),
    st.builds(lambda s, t: ("MOVALL", {"rdbase": s, "rdbase2": t}), CPU, CPU),
    st.builds(
        lambda n, d, e: (n, {"device": d, "event": e}), st.sampled_from(["INT", "CLEAR", "DISCARD"]), DEVICE, EVENT
    ),
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("queue"), st.lists(COMMAND, min_size=1, max_size=6)),
    st.tuples(st.just("enable"), CPU, st.integers(0, 1)),
    st.tuples(st.just("invalidate"), CPU),
    st.tuples(st.just("property"), DEVICE, EVENT, st.sampled_from([0xA3, 0xB3, 0xA2])),
    st.tuples(st.just("msi"), EVENT, DEVICE),
    st.tuples(st.just("table"), st.sampled_from([BASER0, BASER1])),
    st.tuples(st.just("look"), CPU),
)


def ready(limit: int) -> ItsRig:
    """Every event of three devices is an LPI of its own."""
    rig = ItsRig(vcpus=VCPUS)
    for device in range(DEVICES_MAPPED):
        rig.map_device(device, size=3)
        for event in range(EVENTS):
            rig.map(LPI + device * EVENTS + event, device, event, icid=event % VCPUS)
    rig.vgic.dist.backlog.limit = limit
    return rig


def accesses(rig: ItsRig, step: Step) -> Iterator[None]:
    """A step of the guest, access by access."""
    match step:
        case ("queue", commands):
            at = rig.its.cwriter
            for n, (name, fields) in enumerate(commands):
                rig.memory.write(QUEUE + (at + 32 * n) % 4096, arch.encode_command(name, **fields))
            yield rig.gits.write(0, CWRITER, 8, (at + 32 * len(commands)) % 4096)
        case ("enable", cpu, value):
            yield rig.redist.write(cpu, cpu * 0x2_0000 + GICR_CTLR, 4, value)
        case ("invalidate", cpu):
            yield rig.redist.write(cpu, cpu * 0x2_0000 + GICR_INVALLR, 8, 0)
        case ("property", device, event, value):
            rig.configure_lpi(LPI + device * EVENTS + event, value)
        case ("msi", event, device):
            rig.vgic.signal_msi(rig.its.doorbell or 0, event, device)
        case ("table", register):
            table = DEVICES if register == BASER0 else COLLECTIONS
            yield rig.gits.write(0, CTLR, 4, 0)
            yield rig.gits.write(0, register, 8, table)
            yield rig.gits.write(0, register, 8, table | arch.VALID)
            yield rig.gits.write(0, CTLR, 4, ENABLE)
        case ("look", cpu):
            yield rig.redist.read(cpu, cpu * 0x2_0000 + GICR_SYNCR, 4) and None
            yield rig.gits.read(0, CREADR, 8) and None


def busy(rig: ItsRig) -> bool:
    return bool(rig.vgic.dist.backlog.jobs) or (rig.its.enabled and not rig.its.quiescent)


def drain(rig: ItsRig) -> int:
    """Time goes on until nothing is left; how many slices that took."""
    slices = 0
    while busy(rig):
        rig.vgic.go_on()
        slices += 1
        assert slices < 10_000, "it does not end"
    return slices


def contents(rig: ItsRig) -> Any:
    """What the guest could tell: state and memory, with the list registers folded."""
    rig.vgic.sync_all()
    state = rig.vgic.state()
    cpus: Any = state["cpus"]
    for cpu in cpus:
        cpu["ap_list"].sort()
    return state, bytes(rig.memory.bytes)


class Meter:
    """Counts work, from the last look at it."""

    def __init__(self) -> None:
        self.work = 0

    def take(self) -> int:
        work, self.work = self.work, 0
        return work


@contextmanager
def metered() -> Iterator[Meter]:
    meter = Meter()

    def action(original: backlog.Action) -> backlog.Action:
        def counted(vgic: Any, about: Any, lpis: Any) -> None:
            meter.work += len(lpis)
            original(vgic, about, lpis)

        return counted

    execute = its_cmd.execute

    def counted_command(its: Any, data: bytes) -> None:
        meter.work += 1
        execute(its, data)

    actions = {name: action(original) for name, original in lpi.ACTIONS.items()}
    with (
        mock.patch.object(lpi, "ACTIONS", actions),
        mock.patch.object(its_cmd, "execute", counted_command),
    ):
        yield meter


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_in_parts_it_comes_to_the_same(steps: list[Step]) -> None:
    whole, parts = ready(1 << 30), ready(LIMIT)
    for step in steps:
        for rig in (whole, parts):
            for _ in accesses(rig, step):
                drain(rig)
        assert contents(whole) == contents(parts)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=25), st.data())
def test_no_access_is_more_work_than_its_limit(steps: list[Step], data: st.DataObject) -> None:
    """Even where the guest does not wait: accesses come while the work of others is left."""
    rig = ready(LIMIT)
    with metered() as meter:
        for step in steps:
            for _ in accesses(rig, step):
                assert meter.take() <= LIMIT
                assert len(rig.vgic.dist.backlog.jobs) <= 2 + len(steps), (
                    "what is asked for again is not done twice"
                )
            for _ in range(data.draw(st.integers(0, 2))):
                rig.vgic.go_on()
                assert meter.take() <= LIMIT
        drain(rig)
    for each in rig.vgic.dist.lpis.values():
        enabled = each.home is not None and rig.vgic.dist.cpu(each.home).lpis_enabled
        assert each.target == (each.home if enabled else None)
        assert each.references == sum(
            event.lpi is each
            for device in rig.its.devices.values()
            for event in device.events.values()
        )
    for cpu in rig.vgic.dist.cpus():
        assert cpu.lpis_enabled == cpu.lpis_wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=12), st.integers(0, 3))
def test_it_is_part_of_the_state(steps: list[Step], slices: int) -> None:
    """Saved and restored in the middle of it, the work ends as it would have."""
    rig = ready(LIMIT)
    for step in steps:
        for _ in accesses(rig, step):
            for _ in range(slices):
                rig.vgic.go_on()
    rig.vgic.sync_all()
    saved = rig.vgic.state()
    other = rig.another()
    other.vgic.load_state(saved)
    other.vgic.dist.backlog.limit = LIMIT
    for each in (rig, other):
        drain(each)
    assert contents(rig) == contents(other)


def test_the_registers_say_that_work_goes_on() -> None:
    rig = ready(LIMIT)
    rig.rd(0, GICR_INVALLR, 0)
    assert rig.rd(0, GICR_SYNCR, size=4) == 1
    drain(rig)
    assert rig.rd(0, GICR_SYNCR, size=4) == 0
    rig.rd(0, GICR_CTLR, 0, 4)
    assert rig.rd(0, GICR_CTLR, size=4) & (ENABLE | GICR_CTLR_RWP) == GICR_CTLR_RWP
    rig.rd(0, GICR_CTLR, ENABLE, 4)  # before it is done: it is enabled again, after
    assert rig.rd(0, GICR_CTLR, size=4) & (ENABLE | GICR_CTLR_RWP) == ENABLE
    drain(rig)
    assert all(each.target == each.home for each in rig.vgic.dist.lpis.values())


def test_user_space_saves_what_is_complete() -> None:
    rig = ready(LIMIT)
    rig.set(CWRITER, rig.its.cwriter)
    rig.push("MAPC", icid=0, rdbase=1, valid=1)
    assert rig.vgic.dist.backlog.jobs
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_SAVE_TABLES)
    assert not rig.vgic.dist.backlog.jobs and all(row["vcpu"] != 0 for row in rig.its.rows())


def test_a_guest_that_only_waits_sees_the_end() -> None:
    """Nobody accesses the ITS again: the queue goes on as time does."""
    count = backlog.STEPS * 3
    machine = Machine("gic-lpi")
    vm = machine.board.vm
    vgic = vm.vgic
    assert vgic is not None
    its = vgic.its[0]
    its.cbaser = arch.VALID | 0x4100_0000 | 0xFF
    its.enabled, its.cwriter = True, count * arch.COMMAND_SIZE
    vm.write_memory(0x4100_0000, arch.encode_command("SYNC", rdbase=0) * count)
    vgic.go_on()
    assert its.creadr == backlog.STEPS * arch.COMMAND_SIZE
    machine.run_until(ns=2 * backlog.SLICE_NS)
    assert its.quiescent
