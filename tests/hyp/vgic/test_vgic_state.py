"""Every attribute of the vGIC's objects is in the object's table of saved attributes, or is known
to be wiring, or to follow from what is saved."""

from __future__ import annotations

import pytest
from its_rig import ItsRig

from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import Lpi, VgicIrq
from armvirt.hyp.vgic.its.its import Its

#: Wiring; what is fixed when the object is made; the place, which follows from the vCPU's lists.
IRQ = {"owner", "get_input_level", "carries_cpuid", "reset_group", "vcpu", "lr"}
#: All that is the same for every LPI, what follows from redistributors and ITSs, and ``line_level``,
#: which an LPI does not have.
LPI = IRQ | {
    *(
        "acked",
        "active",
        "active_source",
        "any_cpu",
        "group",
        "hw",
        "hwintid",
        "level",
        "line_level",
    ),
    *("mpidr", "references", "running", "source", "target", "targets"),
}
CPU = {
    *("model", "mpidr", "prebits", "redist_base", "redist_index", "redist_region", "vif"),
    *("_vmcr", "ap0r", "ap1r", "mapped", "private"),  # saved and restored by `state`
}
DIST = {
    *("bus", "vm", "num_pri_bits", "id_base", "placement", "watched", "memory", "has_its"),
    *("vcpus", "nr_spis", "_spis", "any_cpu", "stray_active", "lpis", "backlog"),
}
ITS = {"base", "dist", "devices", "collections", "events"}


def attributes(cls: type) -> set[str]:
    return {name for each in cls.__mro__ for name in getattr(each, "__slots__", ())}


@pytest.mark.parametrize(
    ("cls", "saved", "rest"),
    [
        (VgicIrq, VgicIrq.SAVED, IRQ),
        (Lpi, Lpi.SAVED, LPI),
        (VgicCpu, (*VgicCpu.SAVED, *VgicCpu.SAVED_LISTS), CPU),
        (Its, Its.SAVED, ITS),
    ],
)
def test_every_attribute_is_saved_or_known(
    cls: type, saved: tuple[str, ...], rest: set[str]
) -> None:
    assert attributes(cls) | {"vmcr"} == {*saved, *rest} | {"vmcr"}
    assert not rest.intersection(saved)


def test_every_attribute_of_a_distributor_is_saved_or_known() -> None:
    dist = ItsRig().vgic.dist
    assert {*vars(dist), "nr_irqs"} == {*Distributor.SHAPE, *Distributor.SAVED, *DIST}
