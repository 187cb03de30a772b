"""What is shown of ITSs and LPIs, and that looking changes nothing."""

from __future__ import annotations

from its_rig import CTLR, LPI, ItsRig

from armvirt.hyp.diagnosis import gic_view as snapshot
from armvirt.hyp.diagnosis import its_view as its_snapshot


def test_without_an_its_there_is_nothing() -> None:
    rig = ItsRig(ready=False)
    assert not its_snapshot.in_use(rig.vgic) and its_snapshot.of(rig.vgic)["ITS devices"] == []
    rig.vgic.its.clear()
    assert its_snapshot.of(rig.vgic) == {}


def test_a_queue_that_waits() -> None:
    rig = ItsRig(vcpus=2)
    rig.map(LPI + 3, device=5, event=9, icid=1)
    rig.msi(9, device=5)
    rig.set(CTLR, 0, 4)
    rig.push("INT", device=5, event=9)
    before = rig.vgic.state()
    shown = its_snapshot.of(rig.vgic)
    assert rig.vgic.state() == before and its_snapshot.in_use(rig.vgic)
    assert [row["meaning"] for row in shown["ITS"] if row["register"] in ("GITS_CTLR", "GITS_CREADR")] == [
        "disabled", "1 commands wait",
    ]  # fmt: skip
    assert shown["ITS collections"] == [{"collection": 0, "vcpu": 0}, {"collection": 1, "vcpu": 1}]
    assert [
        (row["device"], row["EventID bits"], row["events"]) for row in shown["ITS devices"]
    ] == [(5, 5, 1)]
    assert shown["ITS translations"] == [
        {"device": 5, "event": 9, "intid": LPI + 3, "icid": 1, "vcpu": 1}
    ]
    assert [(row["EnableLPIs"], row["LPIs"], row["pending"]) for row in shown["LPI tables"]] == [
        (1, 0, 0),
        (1, 1, 1),
    ]


def test_lpis_are_among_the_interrupts() -> None:
    rig = ItsRig()
    rig.map(LPI)
    rig.map(LPI + 1, prop=0xA2)
    rows = snapshot.interrupts(rig.vgic.dist, rig.vgic.dist.cpus())
    assert [(row["INTID"], row["kind"], row["target"]) for row in rows] == [(LPI, "LPI", "vCPU 0")]
    everything = snapshot.interrupts(rig.vgic.dist, rig.vgic.dist.cpus(), everything=True)
    assert [row["INTID"] for row in everything][-2:] == [LPI, LPI + 1]
