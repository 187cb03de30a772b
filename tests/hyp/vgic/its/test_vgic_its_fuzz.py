"""No write of a guest to the ITS, its queue or its tables raises or hangs, and the maps stay
consistent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from its_rig import (
    BASER0,
    BASER1,
    CBASER,
    CREADR,
    CTLR,
    CWRITER,
    GICR_CTLR,
    GICR_INVALLR,
    GICR_INVLPIR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    ITTS,
    LPI,
    QUEUE,
    RAM,
    RAM_SIZE,
    ItsRig,
)

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import Ctrl, Group

VCPUS = 2
SMALL = st.integers(0, 9)
NUMBER = st.one_of(SMALL, st.integers(LPI, LPI + 9), st.integers(0, (1 << 64) - 1))
ADDRESS = st.one_of(
    st.integers(RAM >> 16, (RAM + RAM_SIZE >> 16) + 1).map(lambda n: n << 16), NUMBER
)
FIELD = {
    "device": SMALL, "event": st.one_of(SMALL, st.integers(LPI, LPI + 3)), "size": st.integers(0, 31),
    "intid": st.one_of(st.integers(LPI, LPI + 5), NUMBER), "icid": SMALL,
    "itt": st.sampled_from([ITTS, RAM + RAM_SIZE, 0]),
    "rdbase": st.integers(0, VCPUS), "rdbase2": st.integers(0, VCPUS), "valid": st.integers(0, 1),
}  # fmt: skip
COMMAND = st.one_of(
    st.sampled_from(sorted(name for name, _ in arch.COMMANDS.values())).flatmap(
        lambda name: st.fixed_dictionaries(FIELD).map(
            lambda fields: arch.encode_command(name, **fields)
        )
    ),
    st.binary(min_size=32, max_size=32),
)
REGISTER = st.sampled_from(
    [CTLR, CBASER, CWRITER, BASER0, BASER1, CREADR, CBASER + 4, BASER0 + 4, GITS_TRANSLATER, 0xFFE8]
)
RD_REGISTER = st.sampled_from(
    [GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER, GICR_INVLPIR, GICR_INVALLR]
)
STEP = st.one_of(
    st.tuples(st.just("command"), COMMAND),
    st.tuples(st.just("register"), REGISTER, st.sampled_from([1, 2, 4, 8]), ADDRESS),
    st.tuples(
        st.just("redist"), st.integers(0, VCPUS - 1), RD_REGISTER, st.sampled_from([4, 8]), ADDRESS
    ),
    st.tuples(st.just("memory"), st.integers(0, 0xC0), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just("msi"), SMALL, SMALL),
    st.tuples(st.just("serve"), st.integers(0, VCPUS - 1)),
    st.tuples(st.just("clone")),
    st.tuples(st.just("sleep"), st.integers(0, VCPUS - 1)),
    st.tuples(
        st.just("tables"),
        st.sampled_from([Ctrl.ITS_SAVE_TABLES, Ctrl.ITS_RESTORE_TABLES, Ctrl.ITS_CTRL_RESET]),
    ),
)


def apply(rig: ItsRig, step: tuple[object, ...]) -> ItsRig:
    match step:
        case ("command", bytes(data)):
            at = (rig.its.cbaser & arch.CBASER_ADDRESS) + rig.its.cwriter
            if RAM <= at < RAM + RAM_SIZE - 32:
                rig.push_raw(data)
        case ("register", int(offset), int(size), int(value)):
            rig.gits.write(0, offset, size, value & (1 << 8 * size) - 1)
            rig.gits.read(0, offset, size)
        case ("redist", int(vcpu), int(offset), int(size), int(value)):
            rig.rd(vcpu, offset, value & (1 << 8 * size) - 1, size)
        case ("memory", int(page), bytes(data)):
            rig.memory.write(RAM + page * 0x1000, data)
        case ("msi", int(event), int(device)):
            rig.msi(event, device)
        case ("serve", int(vcpu)) if vcpu in rig.pe_of:
            rig.serve(vcpu)
        case ("sleep", int(vcpu)) if vcpu in rig.pe_of:
            rig.put(vcpu)
        case ("sleep", int(vcpu)):
            rig.load(vcpu, vcpu)
        case ("clone",):
            return rig.clone()
        case ("tables", int(control)):
            try:
                rig.its_device.set_attr(Group.CTRL, control)
            except KvmError as error:
                assert error.errno in ("EINVAL", "EFAULT", "EEXIST")
    rig.settle()
    return rig


def balanced(rig: ItsRig) -> None:
    """References, ap_lists and targets agree with the maps."""
    its, vgic = rig.its, rig.vgic
    mapped = [event.lpi for device in its.devices.values() for event in device.events.values()]
    assert its.events == len(mapped)
    assert {lpi.intid: lpi.references for lpi in vgic.dist.lpis.values()} == {
        lpi.intid: mapped.count(lpi) for lpi in mapped
    }
    assert all(vgic.dist.lpis[lpi.intid] is lpi for lpi in mapped)
    for lpi in vgic.dist.lpis.values():
        enabled = lpi.home is not None and vgic.dist.cpu(lpi.home).lpis_enabled
        assert lpi.target == (lpi.home if enabled else None) and not lpi.active
    for cpu in vgic.dist.cpus():
        assert all(irq.intid < LPI or vgic.dist.lpis.get(irq.intid) is irq for irq in cpu.ap_list)
    assert its.quiescent or not its.enabled
    assert its.creadr < arch.queue_size(its.cbaser) and its.cwriter < arch.queue_size(its.cbaser)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_no_guest_breaks_it(steps: list[tuple[object, ...]]) -> None:
    rig = ItsRig(vcpus=VCPUS, list_registers=1)
    for n in range(3):
        rig.map(LPI + n, icid=n % VCPUS)
    for step in steps:
        rig = apply(rig, step)
        balanced(rig)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=4096), st.integers(0, (1 << 64) - 1))
def test_a_queue_of_random_bytes_ends(data: bytes, writer: int) -> None:
    rig = ItsRig(vcpus=VCPUS)
    rig.memory.write(QUEUE, data)
    rig.set(CWRITER, writer)
    balanced(rig)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 1000), st.integers(0, (1 << 64) - 1), max_size=30))
def test_tables_of_random_entries_are_restored_or_refused(entries: dict[int, int]) -> None:
    rig = ItsRig(vcpus=VCPUS)
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_CTRL_RESET)
    for index, entry in entries.items():
        rig.memory.put(RAM + 0x1_0000 * (1 + index % 12) + index // 12 * 8, entry)
    rig.set(BASER0, RAM + 0x1_0000 | 1 << 63)
    rig.set(BASER1, RAM + 0x2_0000 | 1 << 63)
    apply(rig, ("tables", int(Ctrl.ITS_RESTORE_TABLES)))
    balanced(rig)
