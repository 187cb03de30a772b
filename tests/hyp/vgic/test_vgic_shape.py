"""Virtual CPU interfaces of other shapes: 1 to 16 list registers, 5 to 7 priority bits
(ICH_VTR_EL2)."""

from __future__ import annotations

import pytest
from vgic_rig import SPURIOUS, Rig

from armvirt.arch.gic import CTLR_A3V, CTLR_PRIBITS_SHIFT, CTLR_RSS, ICC_REGISTERS
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import Group

BITS = (5, 6, 7)
REGISTERS = {5: 1, 6: 2, 7: 4}  # active-priority registers of a group (IHI 0069 12.4.1)


def user(rig: Rig, name: str, value: int | None = None) -> int:
    """ICC_<name>_EL1 of vCPU 0 through the device attribute."""
    attr = ICC_REGISTERS[f"ICC_{name}_EL1"]
    if value is not None:
        rig.device.set_attr(Group.CPU_SYSREGS, attr, value)
    return rig.device.get_attr(Group.CPU_SYSREGS, attr)


def errno_of(rig: Rig, name: str, value: int | None = None) -> str:
    with pytest.raises(KvmError) as caught:
        user(rig, name, value)
    return caught.value.errno


@pytest.fixture(params=[True, False], ids=["loaded", "put"])
def loaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def rig_of(bits: int, loaded: bool) -> Rig:
    rig = Rig(priority_bits=bits)
    if not loaded:
        rig.put(0)
    return rig


@pytest.mark.parametrize("list_registers", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("bits", BITS)
def test_many_interrupts_at_once(list_registers: int, bits: int) -> None:
    """In order of priority, each once, whatever number of list registers they have to share."""
    rig = Rig(list_registers=list_registers, priority_bits=bits)
    for n, intid in enumerate(range(40, 60)):
        rig.enable(intid)
        rig.set_priority(intid, 0xF0 - 8 * n)
        rig.inject(intid)
    assert [rig.serve() for _ in range(21)] == [*reversed(range(40, 60)), SPURIOUS]


@pytest.mark.parametrize("list_registers", [1, 2, 16])
@pytest.mark.parametrize("eoimode", [0, 1])
def test_nesting_deeper_than_the_list_registers(list_registers: int, eoimode: int) -> None:
    """Sixteen active at once: those without a list register are ended by EOIcount, or by a trapped
    ICC_DIR_EL1."""
    rig = Rig(list_registers=list_registers)
    rig.icc(0, "CTLR", 2 * eoimode)
    intids = list(range(40, 56))
    for n, intid in enumerate(intids):
        rig.enable(intid)
        rig.set_priority(intid, 0xF0 - 8 * n)
        rig.inject(intid)
        assert rig.ack() == intid
    for intid in reversed(intids):
        rig.eoi(intid)
    if eoimode:
        assert all(rig.active(intid) for intid in intids)
        for intid in intids:  # in the other order
            rig.dir(intid)
    assert rig.icc(0, "RPR") == 0xFF and not any(rig.active(intid) for intid in intids)


@pytest.mark.parametrize("bits", BITS)
def test_what_the_guest_sees(bits: int) -> None:
    rig = Rig(priority_bits=bits)
    assert rig.icc(0, "CTLR") == CTLR_RSS | CTLR_A3V | bits - 1 << CTLR_PRIBITS_SHIFT
    rig.icc(0, "PMR", 0xFF)
    assert rig.icc(0, "PMR") == 0xFF << 8 - bits & 0xFF
    assert (rig.icc(0, "BPR0", 0), rig.icc(0, "BPR1", 0)) == (0, 0)
    assert (rig.icc(0, "BPR0"), rig.icc(0, "BPR1")) == (7 - bits, 8 - bits)


@pytest.mark.parametrize("bits", BITS)
def test_distributor_priorities_have_five_bits(bits: int) -> None:
    """VGIC_PRI_BITS: KVM stores priority & 0xF8 under an interface with more bits too."""
    rig = Rig(priority_bits=bits)
    rig.set_priority(40, 0xFF)
    assert rig.dist.read(0, 0x400 + 40, 1) == 0xF8
    rig.enable(40)
    rig.inject(40)
    assert rig.ack() == SPURIOUS, "the mask is 0xF8"
    rig.icc(0, "PMR", 0xFF)
    assert rig.ack() == (SPURIOUS if bits == 5 else 40), "0xFF reads as 0xF8, 0xFC or 0xFE"


@pytest.mark.parametrize("bits", BITS)
def test_what_user_space_sees(bits: int, loaded: bool) -> None:
    rig = rig_of(bits, loaded)
    assert user(rig, "CTLR") & 7 << CTLR_PRIBITS_SHIFT == bits - 1 << CTLR_PRIBITS_SHIFT
    assert user(rig, "PMR", 0xFF) == 0xFF << 8 - bits & 0xFF
    assert (user(rig, "BPR0", 0), user(rig, "BPR1", 0)) == (7 - bits, 8 - bits)
    assert (user(rig, "BPR0", 6), user(rig, "BPR1", 7)) == (6, 7)
    for group in (0, 1):
        for n in range(4):
            if n < REGISTERS[bits]:
                assert user(rig, f"AP{group}R{n}", 1 << 7) == 1 << 7
            else:
                assert (
                    errno_of(rig, f"AP{group}R{n}")
                    == errno_of(rig, f"AP{group}R{n}", 0)
                    == "EINVAL"
                )


@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_lost_between_two_interfaces(bits: int) -> None:
    """What user space restores into a vCPU that is on no PE reaches the interface, and comes back
    from another."""
    rig = Rig(vcpus=2, priority_bits=bits)
    rig.put(1)
    rig.put(0)
    values = {"PMR": 0xA0, "BPR0": 4, "BPR1": 6, "IGRPEN0": 1, "IGRPEN1": 0}
    values |= {f"AP{group}R{n}": 1 << 9 + group for group in (0, 1) for n in range(REGISTERS[bits])}
    for name, value in values.items():
        assert user(rig, name, value) == value
    for pe in (1, 0, 1):
        rig.load(0, pe)
        assert {name: rig.icc(0, name) for name in values} == values
        rig.put(0)
        assert {name: user(rig, name) for name in values} == values


def test_more_priority_bits_than_the_host_has_are_refused(loaded: bool) -> None:
    rig = rig_of(6, loaded)
    assert errno_of(rig, "CTLR", CTLR_A3V | 6 << CTLR_PRIBITS_SHIFT) == "EINVAL"
    user(rig, "CTLR", CTLR_A3V | 5 << CTLR_PRIBITS_SHIFT)


def test_fewer_priority_bits_are_taken_over(loaded: bool) -> None:
    """A VM that comes from a smaller interface: its user space keeps seeing that one, and cannot go
    back up."""
    rig = rig_of(7, loaded)
    user(rig, "CTLR", CTLR_A3V | 4 << CTLR_PRIBITS_SHIFT)
    assert user(rig, "CTLR") >> CTLR_PRIBITS_SHIFT & 7 == 4
    assert errno_of(rig, "AP1R1") == "EINVAL"
    assert errno_of(rig, "CTLR", CTLR_A3V | 5 << CTLR_PRIBITS_SHIFT) == "EINVAL"
    if loaded:
        assert rig.icc(0, "CTLR") >> CTLR_PRIBITS_SHIFT & 7 == 6, "the guest sees the hardware"


@pytest.mark.parametrize("bits", BITS)
def test_the_state_round_trip(bits: int) -> None:
    rig = Rig(list_registers=2, priority_bits=bits)
    for intid in (40, 41, 42):
        rig.enable(intid)
        rig.inject(intid)
    rig.ack()
    other = rig.clone()
    assert other.vgic.state() == rig.vgic.state() and other.vif(0).state() == rig.vif(0).state()
    other.eoi(40)
    assert [other.serve() for _ in range(3)] == [41, 42, SPURIOUS]
