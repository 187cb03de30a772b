"""The GICv2 and GICv3 registers that have the fields of an interrupt, with their names and offsets.
No function of this module changes a state. No function copies the list registers back into the
vGIC's interrupts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    FIRST_LPI,
    GICR_FRAME_SIZE,
    GICR_SIZE,
    ICACTIVER,
    ICENABLER,
    ICPENDR,
    IGROUPR,
    IPRIORITYR,
    IROUTER,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    ITARGETSR,
    NR_PRIVATE,
    OFFSETS,
    is_private,
    is_sgi,
)
from armvirt.arch.its import property_address
from armvirt.hyp.diagnosis.finding import Register
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor

BIT_ARRAYS = {
    IGROUPR: "IGROUPR", ISENABLER: "ISENABLER", ICENABLER: "ICENABLER", ISPENDR: "ISPENDR", ICPENDR: "ICPENDR",
    ISACTIVER: "ISACTIVER", ICACTIVER: "ICACTIVER",
}  # fmt: skip

#: The registers of the CPU interface by key: the system register of a GICv3 with its field, then
#: the register of a GICv2 with its field.
CPU_INTERFACE = {
    "group0": (("ICC_IGRPEN0_EL1", "Enable"), ("GICC_CTLR", "EnableGrp0")),
    "group1": (("ICC_IGRPEN1_EL1", "Enable"), ("GICC_CTLR", "EnableGrp1")),
    "mask": (("ICC_PMR_EL1", ""), ("GICC_PMR", "")),
    "running": (("ICC_RPR_EL1", ""), ("GICC_RPR", "")),
    "eoi0": (("ICC_EOIR0_EL1", "INTID"), ("GICC_EOIR", "INTID")),
    "eoi1": (("ICC_EOIR1_EL1", "INTID"), ("GICC_EOIR", "INTID")),
    "dir": (("ICC_DIR_EL1", "INTID"), ("GICC_DIR", "INTID")),
    "highest0": (("ICC_HPPIR0_EL1", "INTID"), ("GICC_HPPIR", "INTID")),
    "highest1": (("ICC_HPPIR1_EL1", "INTID"), ("GICC_HPPIR", "INTID")),
}


def interface(dist: Distributor, cpu: VgicCpu, what: str) -> Register:
    """A register of the CPU interface. ``what`` is its key in `CPU_INTERFACE`, for example "mask"
    for ICC_PMR_EL1 or GICC_PMR."""
    (name, field), (v2_name, v2_field) = CPU_INTERFACE[what]
    if dist.model == 2:
        return Register(v2_name, v2_field, "GICC", OFFSETS[v2_name], cpu=cpu.vcpu_id)
    return Register(name, field, cpu=cpu.vcpu_id)


def distributor_control(dist: Distributor, group: int) -> Register:
    return Register("GICD_CTLR", f"EnableGrp{group}", "GICD", OFFSETS["GICD_CTLR"])


def bit_register(dist: Distributor, cpu: VgicCpu, intid: int, array: int) -> Register:
    """The register that has the bit of an INTID. ``array`` selects one of the register arrays, such
    as ISENABLER: it is the offset of the array, a key of `BIT_ARRAYS`."""
    name, bit = BIT_ARRAYS[array], intid % 32
    if is_private(intid) and dist.model != 2:
        return Register(
            f"GICR_{name}0", f"bit {bit}", "GICR", _sgi_base(cpu) + array, bit=bit, cpu=cpu.vcpu_id
        )
    bank = cpu.vcpu_id if is_private(intid) else -1
    return Register(
        f"GICD_{name}{intid // 32}",
        f"bit {bit}",
        "GICD",
        array + intid // 32 * 4,
        bit=bit,
        cpu=bank,
    )


def bit_value(dist: Distributor, cpu: VgicCpu, intid: int, field: Callable[[VgicIrq], int]) -> int:
    """The value of the register that `bit_register` returns, one bit for each interrupt.
    ``field(irq)`` returns the bit of the interrupt that is its argument."""
    if is_private(intid):
        return sum(field(irq) << n for n, irq in enumerate(cpu.private))
    first = intid & ~31
    irqs = ((n, dist.spi(first + n)) for n in range(32))
    return sum(field(irq) << n for n, irq in irqs if irq is not None)


def priority_byte(dist: Distributor, cpu: VgicCpu, intid: int) -> Register:
    if intid >= FIRST_LPI:
        return property_byte(dist, intid, "")
    field, private = f"byte {intid % 4}", is_private(intid)
    if private and dist.model != 2:
        offset = _sgi_base(cpu) + IPRIORITYR + intid
        return Register(f"GICR_IPRIORITYR{intid // 4}", field, "GICR", offset, 1, cpu=cpu.vcpu_id)
    bank = cpu.vcpu_id if private else -1
    return Register(f"GICD_IPRIORITYR{intid // 4}", field, "GICD", IPRIORITYR + intid, 1, cpu=bank)


def routing_register(dist: Distributor, intid: int) -> Register:
    """The routing register of an SPI: GICD_IROUTER<n> of a GICv3, or the byte of GICD_ITARGETSR<n>
    of a GICv2."""
    if dist.model == 2:
        return Register(
            f"GICD_ITARGETSR{intid // 4}", f"byte {intid % 4}", "GICD", ITARGETSR + intid, 1
        )
    return Register(f"GICD_IROUTER{intid}", "", "GICD", IROUTER + 8 * intid, 8)


def property_byte(dist: Distributor, intid: int, field: str) -> Register:
    """The configuration byte of an LPI. The byte is in guest memory, in the table at GICR_PROPBASER
    (IHI 0069 5.1.1)."""
    return Register(f"LPI configuration at {property_address(dist.propbaser, intid):#x}", field)


def redistributor(cpu: VgicCpu, name: str, field: str) -> Register:
    """A register in the frame RD_base of a vCPU's redistributor. ``name`` is the name of the
    register, for example GICR_CTLR."""
    offset = cpu.redist_index * GICR_SIZE + OFFSETS[name]
    return Register(name, field, "GICR", offset, cpu=cpu.vcpu_id)


def _sgi_base(cpu: VgicCpu) -> int:
    """The offset in bytes of the frame SGI_base of a vCPU's redistributor from the start of the
    redistributor region."""
    return max(cpu.redist_index, 0) * GICR_SIZE + GICR_FRAME_SIZE


def kind_of(intid: int) -> str:
    """The kind of an INTID: SGI, PPI, SPI or LPI."""
    if intid >= FIRST_LPI:
        return "LPI"
    return "SGI" if is_sgi(intid) else "PPI" if intid < NR_PRIVATE else "SPI"
