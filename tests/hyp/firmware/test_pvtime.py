"""Stolen time and the PTP call, by guests on the KVM API."""

from __future__ import annotations

from hyp_tools import DATA, RAM, Asm, Rig, both_engines, errno_of, power_off

from armvirt.arch.psci import SmcccFunction
from armvirt.hyp.firmware.pvtime import WALL_CLOCK_START
from armvirt.hyp.kvm import PVTIME_IPA, Kvm, Start, VcpuGroup

GROUP = VcpuGroup.PVTIME_CTRL
PLACE = DATA + 0x1000
OTHER = RAM + 0x8000
NONE = (1 << 64) - 1


def calling(*calls: tuple[int, int]) -> Asm:
    """Hypercalls (function, x1); x0 to x3 of each are stored from `DATA` on."""
    a = Asm(RAM)
    a.mov(20, DATA)
    for n, (function, argument) in enumerate(calls):
        a.mov(0, function)
        a.mov(1, argument)
        a.hvc(0)
        for word in range(4):
            a.str_(word, 20, 32 * n + 8 * word)
    power_off(a)
    return a


def answers(rig: Rig, count: int) -> list[list[int]]:
    rig.finish()
    return [[rig.word(DATA + 32 * n + 8 * word) for word in range(4)] for n in range(count)]


# -- the attribute --


def test_attribute_errors_leave_it_unset() -> None:
    vcpu = Rig().vcpu
    before = vcpu.state()
    assert errno_of(vcpu.set_device_attr, GROUP, PVTIME_IPA, PLACE + 32) == "EINVAL"
    assert errno_of(vcpu.set_device_attr, GROUP, PVTIME_IPA, 0) == "EINVAL"
    assert errno_of(vcpu.set_device_attr, GROUP, 1, PLACE) == "ENXIO"
    assert errno_of(vcpu.has_device_attr, GROUP, 1) == "ENXIO"
    assert errno_of(vcpu.get_device_attr, 77, 0) == "ENXIO"
    assert vcpu.state() == before and vcpu.get_device_attr(GROUP, PVTIME_IPA) == NONE


def test_attribute_is_set_once() -> None:
    vcpu = Rig().vcpu
    vcpu.has_device_attr(GROUP, PVTIME_IPA)
    vcpu.set_device_attr(GROUP, PVTIME_IPA, PLACE)
    assert errno_of(vcpu.set_device_attr, GROUP, PVTIME_IPA, PLACE) == "EEXIST"
    assert vcpu.get_device_attr(GROUP, PVTIME_IPA) == PLACE


# -- the hypercalls --

DISCOVER = (
    (SmcccFunction.ARCH_FEATURES, SmcccFunction.PV_TIME_FEATURES),
    (SmcccFunction.PV_TIME_FEATURES, SmcccFunction.PV_TIME_FEATURES),
    (SmcccFunction.PV_TIME_FEATURES, SmcccFunction.PV_TIME_ST),
    (SmcccFunction.PV_TIME_FEATURES, SmcccFunction.VERSION),
    (SmcccFunction.PV_TIME_ST, 0),
)


def test_without_a_place_there_is_no_stolen_time() -> None:
    assert [a[0] for a in answers(Rig(calling(*DISCOVER)), 5)] == [0, NONE, NONE, NONE, NONE]


@both_engines
def test_discovery_and_start(kind: str) -> None:
    rig = Rig(calling(*DISCOVER), kind=kind)
    rig.vcpu.set_device_attr(GROUP, PVTIME_IPA, PLACE)
    rig.vm.write_memory(PLACE, b"\xff" * 80)
    assert [a[0] for a in answers(rig, 5)] == [0, 0, 0, NONE, PLACE]
    assert rig.vm.read_memory(PLACE, 80) == bytes(64) + b"\xff" * 16


# -- accounting --


def overcommitted(kind: str = "auto") -> Rig:
    """Two vCPUs that count for ever, on one physical CPU."""
    rig = Rig(kind=kind, vcpus=2)
    for n, base in enumerate((RAM, OTHER)):
        a = Asm(base)
        a.label("loop")
        a.add_imm(1, 1, 1)
        a.nop()
        a.b("loop")
        rig.vm.write_memory(base, a.code())
        rig.vcpus[n].set_device_attr(GROUP, PVTIME_IPA, PLACE + 64 * n)
        rig.vcpus[n].start(Start(base, 0))
    return rig


def stolen(rig: Rig) -> list[int]:
    return [rig.word(PLACE + 64 * n + 8) for n in range(2)]


@both_engines
def test_what_one_runs_is_stolen_from_the_other(kind: str) -> None:
    """Turns are 100 us: after seven of them, four were vCPU 0's and three vCPU 1's, and it is vCPU
    1's."""
    rig = overcommitted(kind)
    rig.run(700_001)
    assert [vcpu.context.insns for vcpu in rig.vcpus] == [400_000, 300_001]
    first, second = stolen(rig)
    assert (first, second) == (300_000, 400_000)
    assert [rig.vcpus[n].run_delay_ns for n in range(2)] == [first, second]


def test_stopping_anywhere_changes_nothing() -> None:
    whole, parts = overcommitted(), overcommitted()
    whole.run(950_000)
    for until in (50_000, 100_000, 100_001, 333_333, 950_000):
        parts.run(until)
        parts.vm.load(parts.vm.state())
    assert stolen(parts) == stolen(whole) and parts.vm.state() == whole.vm.state()


def test_waiting_is_not_stolen() -> None:
    rig = Rig()
    a = Asm(RAM)
    a.wfi()
    rig.vcpu.set_device_attr(GROUP, PVTIME_IPA, PLACE)
    rig.start(a)
    rig.run()
    assert rig.vcpu.run_delay_ns == 0 and rig.word(PLACE + 8) == 0


# -- PTP --


@both_engines
def test_ptp(kind: str) -> None:
    """Wall clock and counter of the same moment, for either counter; -1 for a third."""
    ptp = SmcccFunction.VENDOR_PTP
    rig = Rig(calling((ptp, 0), (ptp, 1), (ptp, 2), (SmcccFunction.VENDOR_FEATURES, 0)), kind=kind)
    virtual, physical, third, features = answers(rig, 4)
    counter = rig.host.pe.timer.counter
    for answer, offset in ((virtual, rig.vm.timer_data.voffset), (physical, 0)):
        ns = (answer[0] << 32 | answer[1]) - WALL_CLOCK_START
        count = answer[2] << 32 | answer[3]
        assert 0 < ns < rig.host.clock.now
        assert count == counter.start - offset + ns * 62_500_000 // 10**9
    assert third[0] == NONE and features[0] == 3


def test_the_wall_clock_is_the_vmms() -> None:
    vm = Kvm(wall_clock_start=5).create_vm()
    vm.create_vcpu(0)
    assert vm.smccc.call(0, SmcccFunction.VENDOR_PTP, (0,)) == (0, 5, 0, 0)
