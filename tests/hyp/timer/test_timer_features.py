"""FEAT_ECV, FEAT_WFxT, the event stream and the user-space interrupt controller, by guest code."""

from __future__ import annotations

import pytest
from hyp_tools import KINDS, RAM, Asm, power_off

from armvirt.arch import timer as t
from armvirt.arch.encoding import sysreg
from armvirt.errors import UserError
from armvirt.hyp.kvm import HostMemory, IntrExit, Kvm, Start, StuckExit, SystemEventExit, Vcpu
from armvirt.machine import Machine

MRS_CNTVCTSS, MRS_CNTPCTSS = 0xD53BE0C0, 0xD53BE0A0
WFET, WFIT = 0xD503_1000, 0xD503_1020
UNDEF_ESR = 1 << 25


def boot(write, **host: object) -> Vcpu:  # type: ignore[no-untyped-def]
    """vCPU 0 without a GIC, at the start of a program that powers off; a fault leaves ESR in X20
    and does too."""
    vm = Kvm(**host).create_vm()  # type: ignore[arg-type]
    vm.set_user_memory_region(0, RAM, HostMemory(4 << 20))
    vcpu = vm.create_vcpu(0)
    a = Asm(RAM)
    a.set_vectors()
    write(a)
    power_off(a)
    a.vectors(lambda a, offset: (a.mrs(20, "ESR_EL1"), power_off(a)))
    vm.write_memory(RAM, a.code())
    vcpu.start(Start(RAM, 0))
    return vcpu


def counters(a: Asm) -> None:
    a.mrs(1, "CNTVCT_EL0")
    a.word(MRS_CNTVCTSS | 2)
    a.mrs(3, "CNTPCT_EL0")
    a.word(MRS_CNTPCTSS | 4)
    a.mrs(5, sysreg(3, 0, 0, 7, 0))
    a.mrs(6, sysreg(3, 0, 0, 6, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", [{}, {"vhe": True}])
def test_ecv_counters_read_as_the_others(kind: str, host: dict[str, object]) -> None:
    vcpu = boot(counters, engine=kind, frequency_hz=1_000_000_000, cpu_features=("ecv",), **host)
    vcpu.vm.timer_data.set_count(1, 5000)  # type: ignore[arg-type]
    assert isinstance(vcpu.run(1_000_000), SystemEventExit)
    assert vcpu.context.x(2) == vcpu.context.x(1) + 1
    assert vcpu.context.x(4) == vcpu.context.x(3) + 1
    assert vcpu.context.x(5) >> 60 == 1 and vcpu.context.x(6) & 15 == 0


@pytest.mark.parametrize("poffset", [0, 777])
def test_cntpctss_has_the_physical_offset(poffset: int) -> None:
    vcpu = boot(counters, frequency_hz=1_000_000_000, cpu_features=("ecv",))
    vcpu.vm.set_counter_offset(poffset)
    vcpu.run(1_000_000)
    assert vcpu.context.x(4) == vcpu.context.x(3) + 1
    assert vcpu.context.x(3) == vcpu.context.x(1) + 2


def test_a_cval_beyond_the_hardwares_count_never_fires() -> None:
    """A VHE host without CNTPOFF adds the offset to CVAL. What is beyond 64 bits must not end up at
    the last count, where the comparator would interrupt the host again and again for a timer that
    is not to fire."""

    def write(a: Asm) -> None:
        a.mov(1, 1 << 63)
        a.msr("CNTP_CVAL_EL0", 1)
        a.mov(1, 1)
        a.msr("CNTP_CTL_EL0", 1)
        a.mov(1, 20_000)
        a.label("again")
        a.subs_imm(1, 1, 1)
        a.b_cond(1, "again")
        a.mrs(2, "CNTP_CTL_EL0")

    vcpu = boot(write, vhe=True, frequency_hz=1_000_000, counter_start=(1 << 64) - 20)
    vcpu.vm.set_counter_offset((1 << 64) - 100)
    assert vcpu.run(1000) is None
    assert vcpu.timer.hw is not None and vcpu.timer.hw.deadline() is None
    assert isinstance(vcpu.run(10_000_000), SystemEventExit)
    assert vcpu.context.x(2) == t.CTL_ENABLE and vcpu.device_irq_level == 0


@pytest.mark.parametrize("word", [MRS_CNTVCTSS, MRS_CNTPCTSS, WFET, WFIT])
def test_without_the_feature_they_are_undefined(word: int) -> None:
    vcpu = boot(lambda a: a.word(word))
    vcpu.run(1_000_000)
    assert vcpu.context.x(20) == UNDEF_ESR


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frequency", [1_000_000, 62_500_000, 1_000_000_000])
def test_wfit_ends_at_its_count(kind: str, frequency: int) -> None:
    def write(a: Asm) -> None:
        a.mrs(1, "CNTVCT_EL0")
        a.add_imm(1, 1, 500)
        a.word(WFIT | 1)
        a.mrs(2, "CNTVCT_EL0")

    vcpu = boot(write, engine=kind, frequency_hz=frequency, cpu_features=("wfxt",))
    assert isinstance(vcpu.run(10_000_000_000), SystemEventExit)
    assert vcpu.context.x(1) <= vcpu.context.x(2) <= vcpu.context.x(1) + 1


def test_wfit_that_is_past_does_not_wait() -> None:
    vcpu = boot(lambda a: a.word(WFIT | 31), cpu_features=("wfxt",))
    assert isinstance(vcpu.run(1_000_000), SystemEventExit)
    assert vcpu.vm.timers.now < 100


def test_wfet_in_a_loop_sleeps_to_its_count() -> None:
    def write(a: Asm) -> None:
        a.mov(1, 100_000)
        a.label("again")
        a.word(WFET | 1)
        a.mrs(2, "CNTVCT_EL0")
        a.subs(3, 1, 2)
        a.mov(2, 0)
        a.b_cond(4, "end")  # negative
        a.mov(3, 0)
        a.b("again")
        a.label("end")

    vcpu = boot(write, frequency_hz=1_000_000_000, cpu_features=("wfxt",))
    assert isinstance(vcpu.run(10_000_000), SystemEventExit)
    assert 100_000 <= vcpu.vm.timers.now < 100_100
    assert vcpu.context.insns < 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("direction", "edge"), [(0, 1 << 9), (t.CntKctl.EVNTDIR, 1 << 10)])
def test_the_event_stream_wakes_wfe_at_the_edge(kind: str, direction: int, edge: int) -> None:
    """EVNTI = 9: bit 9 of the count, 0 to 1 or 1 to 0."""

    def write(a: Asm) -> None:
        a.mov(1, int(t.CntKctl.EVNTEN) | direction | 9 << 4)
        a.msr("CNTKCTL_EL1", 1)
        a.wfe()  # may complete at once
        a.label("again")
        a.wfe()
        a.mrs(2, "CNTVCT_EL0")
        a.lsr(3, 2, 9)
        a.mov(2, 0)
        a.cbz(3, "again")

    vcpu = boot(write, engine=kind, frequency_hz=1_000_000_000)
    assert isinstance(vcpu.run(1_000_000), SystemEventExit)
    assert edge <= vcpu.vm.timers.now < edge + 40
    assert vcpu.context.insns < 100


def test_without_an_event_stream_wfe_is_a_dead_end() -> None:
    def write(a: Asm) -> None:
        a.label("again")
        a.wfe()
        a.b("again")

    assert isinstance(boot(write).run(1_000_000), StuckExit)


@pytest.mark.parametrize("host", [{}, {"vhe": True}])
@pytest.mark.parametrize(("letter", "bit"), [("V", 1), ("P", 2)])
def test_without_a_vgic_the_vmm_hears_of_the_levels(
    host: dict[str, object], letter: str, bit: int
) -> None:
    def write(a: Asm) -> None:
        a.mov(1, 1000)
        a.msr(f"CNT{letter}_TVAL_EL0", 1)
        a.mov(1, 1)
        a.msr(f"CNT{letter}_CTL_EL0", 1)
        a.wfi()
        a.msr(f"CNT{letter}_CTL_EL0", 31)
        a.mov(0, 0x8400_0000)
        a.hvc(0)

    vcpu = boot(write, frequency_hz=1_000_000_000, **host)
    assert isinstance(vcpu.run(1_000_000), IntrExit)
    assert vcpu.device_irq_level == bit and 1000 <= vcpu.vm.timers.now < 1100
    assert isinstance(vcpu.run(1_000_000), IntrExit)
    assert vcpu.device_irq_level == 0
    assert isinstance(vcpu.run(1_000_000), SystemEventExit)


def test_unknown_features_are_one_line() -> None:
    with pytest.raises(UserError, match="there is no CPU feature 'sve'; there is ecv, wfxt"):
        Machine("hello", cpu_features="ecv,sve")


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1023, 1024, t.MASK64])
@pytest.mark.parametrize("control", [0x94, 0x9C, 0x14 | 1 << 17, 4])
def test_the_next_edge_by_counting(count: int, control: int) -> None:
    bit = (control >> 4 & 15) + (8 if control >> 17 else 0)
    ticks = t.ticks_to_edge(control, count)
    falling = control >> 3 & 1

    def value(n: int) -> int:
        return (count + n) % (1 << 64) >> bit & 1

    edges = (
        n for n in range(1, 3000) if (value(n - 1), value(n)) == ((1, 0) if falling else (0, 1))
    )
    assert ticks == next(edges)
