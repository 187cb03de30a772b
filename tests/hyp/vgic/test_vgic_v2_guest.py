"""A guest on a GICv2, on both engines, from its registers to its exception vector."""

from __future__ import annotations

import json
from collections.abc import Callable

from hyp_tools import DATA, GICD, NE, Asm, Rig, both_engines, errno_of, power_off, program

from armvirt.hyp.kvm import VgicAddress, VgicGroup

GICC = 0x0801_0000
SGI_TO_SELF = 2 << 24
SGI, VTIMER = 5, 27
TURNS = 4


class V2Rig(Rig):
    """The VM with a GICv2, which nobody initialises."""

    def _create_gic(self) -> None:
        self.gic = self.vm.create_device("arm-vgic-v2")
        self.gic.set_attr(VgicGroup.ADDR, VgicAddress.V2_DIST, GICD)
        self.gic.set_attr(VgicGroup.ADDR, VgicAddress.V2_CPU, GICC)

    def words(self, count: int) -> list[int]:
        return [self.word(DATA + 8 * n) for n in range(count)]


def store(a: Asm, value: int, base: int, offset: int) -> None:
    a.mov(1, value)
    a.str_w(1, base, offset)


def interrupted(a: Asm, ctlr: int = 1) -> None:
    """X10 is the distributor, X11 the CPU interface, X12 where INTIDs go, X19 how many are still to
    come.

    The virtual timer's line stays high until the last turn. ``ctlr`` goes to GICC_CTLR.
    """
    a.mov(10, GICD)
    a.mov(11, GICC)
    a.mov(12, DATA)
    a.mov(19, TURNS)
    a.set_vectors()
    store(a, 0x80 << 24, 10, 0x400 + 24)
    store(a, 1 << VTIMER, 10, 0x100)
    store(a, 1, 10, 0)
    store(a, 0xF8, 11, 4)
    store(a, ctlr, 11, 0)
    a.msr_const("CNTV_CVAL_EL0", 0)
    a.msr_const("CNTV_CTL_EL0", 1)
    store(a, SGI_TO_SELF | SGI, 10, 0xF00)
    a.label("wait")
    a.daifset(3)
    a.cbz(19, "done")
    a.wfi()
    a.daifclr(3)
    a.b("wait")
    a.label("done")


def serve(a: Asm, offset: int) -> None:
    """A vector, whichever it is: acknowledge, note the INTID and the vector, end."""
    a.ldr_w(2, 11, 0xC)
    a.str_post(2, 12, 8)
    a.subs_imm(19, 19, 1)
    a.b_cond(NE, f"end{offset}")
    a.msr_const("CNTV_CTL_EL0", 0)
    a.label(f"end{offset}")
    a.str_w(2, 11, 0x10)
    a.movz(20, offset)
    a.eret()


def guest(write: Callable[[Asm], None] = interrupted, kind: str = "auto") -> V2Rig:
    a = program(write)
    a.vectors(serve)
    rig = V2Rig(kind=kind, gic=True)
    rig.start(a)
    return rig


@both_engines
def test_a_line_that_stays_high_comes_again_after_each_end(kind: str) -> None:
    """The end of a mapped interrupt by MMIO lets the host's line in at once: there is no
    instruction in between."""
    rig = guest(kind=kind)
    rig.finish()
    assert rig.words(TURNS + 1) == [SGI, VTIMER, VTIMER, VTIMER, 0]
    assert rig.x(20) == 0x280, "group 0 is an IRQ"
    assert rig.host.clock.now < 1_000_000


def test_group_0_is_a_fiq_with_fiqen() -> None:
    rig = guest(lambda a: interrupted(a, ctlr=9))
    rig.finish()
    assert rig.words(TURNS) == [SGI, VTIMER, VTIMER, VTIMER] and rig.x(20) == 0x300


def test_there_is_no_system_register_interface() -> None:
    def look(a: Asm) -> None:
        a.mrs(1, "ID_AA64PFR0_EL1")
        a.mov(12, DATA)
        a.str_post(1, 12, 8)
        a.set_vectors()
        a.mrs(2, 0xC665)  # ICC_SRE_EL1

    a = program(look)
    a.vectors(lambda a, offset: (a.mrs(3, "ESR_EL1"), a.str_post(3, 12, 8), power_off(a)))  # type: ignore[arg-type]
    rig = V2Rig(gic=True)
    rig.start(a)
    rig.finish()
    features, esr = rig.words(2)
    assert features >> 24 & 15 == 0 and esr >> 26 == 0


def test_state_between_acknowledge_and_end() -> None:
    """Stopped between the first interrupt and the last, saved, and loaded into another VM: the end
    is the same."""
    whole = guest()
    whole.finish()
    for insns in range(31, 66, 2):
        rig, other = guest(), guest()
        rig.host.run(1 << 62, insns)
        state = json.loads(json.dumps(rig.vm.state()))
        other.vm.first_run()
        other.ram.map[:] = bytes(rig.ram.map)
        other.vm.load(state)
        other.finish()
        assert other.vm.state() == whole.vm.state(), insns
        assert other.words(TURNS) == whole.words(TURNS)


# The KVM API ------------------------------------------------------------------------------------


def test_a_gicv2_has_eight_vcpus_at_most() -> None:
    vm = V2Rig(vcpus=8, gic=True).vm
    assert errno_of(lambda: vm.create_vcpu(8)) == "EINVAL"
    assert [vcpu.id for vcpu in vm.vcpus] == list(range(8)), "the one that failed is not there"
    vm.first_run()
    assert errno_of(lambda: vm.create_vcpu(7)) == "EINVAL", (
        "eight, initialised, taken: the first of these is said"
    )


def test_a_gicv2_does_not_fit_more_vcpus() -> None:
    vm = Rig(vcpus=9).vm
    assert errno_of(lambda: vm.create_device("arm-vgic-v2")) == "E2BIG"
    vm.create_device("arm-vgic-v3")


def test_no_vcpu_comes_after_initialisation() -> None:
    vm = V2Rig(gic=True).vm
    vm.irq_line(40, True)
    assert errno_of(lambda: vm.create_vcpu(1)) == "EBUSY"
    assert [vcpu.id for vcpu in vm.vcpus] == [0]
