"""Bugs to plant in the vGIC, which the comparison with the reference model has to find. ``kind`` is
the GIC that shows the bug."""

from __future__ import annotations

from planting import Bug, by_name

VGIC, ICH, GICV = "armvirt.hyp.vgic", "armvirt.hw.ich", "armvirt.hw.gicv"
LRS = f"{VGIC}.list_registers"
REGISTERS = f"{VGIC}.registers"

BUGS = (
    Bug("edge-keeps-latch", f"{LRS}:populate", "irq.pending_latch = False", "pass", "v3"),
    Bug("edge-latch-lost-at-fold", f"{LRS}:fold", "irq.pending_latch or pending", "irq.pending_latch", "v3"),
    Bug("level-latch-outlives-ack", f"{LRS}:fold", "if taken:\n    irq.pending_latch = False", "pass", "v3"),
    Bug(
        "no-eoi-bit-for-levels", f"{LRS}:populate",
        "irq.level or not may_pend or come_back or latched",
        "not may_pend or come_back or latched", "v3",
    ),
    Bug("group-bit-lost", f"{LRS}:priority_and_group", "LR_GROUP1 if irq.group else 0", "LR_GROUP1", "v3"),
    Bug(
        "active-first-when-full", f"{LRS}:by_urgency",
        "(not group_enabled(i, vmcr), i.active, i.priority)",
        "(not group_enabled(i, vmcr), not i.active, i.priority)", "v3",
    ),
    Bug(
        "arrival-order-when-full", f"{LRS}:by_urgency",
        "(not group_enabled(i, vmcr), i.active, i.priority)",
        "(not group_enabled(i, vmcr), i.active)", "v3",
    ),
    Bug("no-npie", f"{LRS}:configure_hcr", "hcr |= arch.ICH_HCR_NPIE if left.pending else 0", "pass", "v3"),
    Bug("no-lrenpie", f"{LRS}:configure_hcr", "left.active or watch_ends", "False", "v3"),
    Bug(
        "no-trap-of-dir", f"{LRS}:configure_hcr",
        "arch.ICH_HCR_TDIR if left.active or foreign_spis else 0",
        "0", "v3",
    ),
    Bug("groups-not-watched", f"{LRS}:configure_hcr", "left.any or watch_groups", "left.any", "v3"),
    Bug(
        "pends-while-disabled", f"{VGIC}.flush:_may_pend",
        "irq.enabled and bool(dist.enables >> irq.group & 1) and irq.target == cpu.vcpu_id",
        "bool(dist.enables >> irq.group & 1) and irq.target == cpu.vcpu_id", "v3",
    ),
    Bug(
        "pends-where-it-was", f"{VGIC}.flush:_may_pend",
        "irq.enabled and bool(dist.enables >> irq.group & 1) and irq.target == cpu.vcpu_id",
        "irq.enabled and bool(dist.enables >> irq.group & 1)", "v3",
    ),
    Bug(
        "replay-of-any-active", f"{VGIC}.flush:ended_outside",
        "irq.active and irq.acked == cpu.vcpu_id",
        "irq.active", "v3",
    ),
    Bug("no-replay", f"{VGIC}.flush:ended_outside", "ended[:count]", "ended[:0]", "v3"),
    Bug("pruned-and-forgotten", f"{VGIC}.flush:prune", "dist.queue(irq, sampled=True)", "pass", "v3"),
    Bug(
        "disabled-is-delivered", f"{VGIC}.irq:target_oracle",
        "irq.enabled and enables >> irq.group & 1 and (irq.pending_latch or (irq.level and irq.line_level))",
        "enables >> irq.group & 1 and (irq.pending_latch or (irq.level and irq.line_level))", "v3",
    ),
    Bug("group-enable-ignored", f"{VGIC}.irq:target_oracle", "enables >> irq.group & 1", "enables", "v3"),
    Bug(
        "active-migrates", f"{VGIC}.irq:target_oracle",
        "irq.vcpu if irq.vcpu is not None else irq.target",
        "irq.target", "v3",
    ),
    Bug("icpendr-does-nothing", f"{REGISTERS}.irq_registers:_clear_pending", "irq.pending_latch = False", "pass", "v3"),
    Bug(
        "icactiver-does-nothing", f"{REGISTERS}.irq_registers:_clear_active",
        "deactivation.change_active(dist, irq, False)",
        "pass", "v3",
    ),
    Bug("priority-not-requeued", f"{REGISTERS}.irq_registers:_set_priority", "dist.queue(irq)", "pass", "v3"),
    Bug("disable-not-requeued", f"{REGISTERS}.irq_registers:_disable", "dist.queue(irq)", "pass", "v3"),
    Bug("sgi0r-for-group-1", f"{VGIC}.sgi:dispatch", "irq.group == 0 or encoding == ICC_SGI1R_EL1", "True", "v3"),
    Bug("irm-includes-sender", f"{VGIC}.sgi:is_target", "cpu is not sender", "True", "v3"),
    Bug("rs-ignored", f"{VGIC}.sgi:is_target", "(affinity & 255) - request.first_aff0", "affinity & 255", "v3"),
    Bug("one-of-n-never-moves", f"{VGIC}.spi_routing:reroute", "target != irq.target", "False", "v3"),
    Bug(
        "pmr-not-strict", f"{ICH}:VirtualCpuInterface._can_signal",
        "priority >= self.vmcr >> VMCR_VPMR_SHIFT",
        "priority > self.vmcr >> VMCR_VPMR_SHIFT", "v3",
    ),
    Bug(
        "preempts-its-equal", f"{ICH}:VirtualCpuInterface._can_signal",
        "priority & mask < running & mask",
        "priority & mask <= running & mask", "v3",
    ),
    Bug(
        "no-preemption-groups", f"{ICH}:VirtualCpuInterface._set_vmcr",
        "self._mask0 if value & VMCR_VCBPR else group1[bpr1]",
        "self._mask0", "v3",
    ),
    Bug("lpi-is-active", f"{ICH}:VirtualCpuInterface.activate", "LR_ACTIVE if intid < FIRST_LPI else 0", "0", "v3"),
    Bug("eoi-keeps-priority", f"{ICH}:VirtualCpuInterface.drop_priority", "registers[word] &= ~bit", "pass", "v3"),
    Bug(
        "eoimode-ignored", f"{ICH}:VirtualCpuInterface._write_eoir",
        "not self.vmcr & VMCR_VEOIM or intid >= FIRST_LPI",
        "True", "v3",
    ),
    Bug(
        "highest-target", f"{VGIC}.spi_routing:set_targets",
        "irq.targets & -irq.targets", "irq.targets", "v2",
    ),
    Bug(
        "one-sender-only", f"{VGIC}.sgi:set_sources",
        "irq.source |= senders & existing(dist)",
        "irq.source = senders & existing(dist)", "v2",
    ),
    Bug("senders-never-leave", f"{LRS}:_take_source", "irq.source &= ~first", "pass", "v2"),
    Bug("first-sender-lost", f"{LRS}:_take_source", "first.bit_length() - 1", "0", "v2"),
    Bug(
        "sgi-pending-and-active", f"{LRS}:populate",
        "again or bool(irq.source) or changed",
        "again or changed", "v2",
    ),
    Bug("ackctl-ignored", f"{GICV}:_visible", "group1 and not vif.vmcr & VMCR_VACKCTL", "group1", "v2"),
    Bug(
        "fiqen-ignored", f"{ICH}:VirtualCpuInterface.update",
        "self.lr[best] & LR_GROUP1 != 0 or not vmcr & VMCR_VFIQEN",
        "self.lr[best] & LR_GROUP1 != 0", "v2",
    ),
    Bug("cpendsgir-clears-all", f"{VGIC}.sgi:clear_sources", "irq.source &= ~senders", "irq.source = 0", "v2"),
    Bug(
        "movi-leaves-pending", f"{VGIC}.its.commands:_movi",
        "lpis.move(its.dist, event.lpi, collection.target)",
        "pass", "its",
    ),
    Bug("inv-reads-nothing", f"{VGIC}.its.commands:_inv", "lpis.invalidate(its.dist, event.lpi)", "pass", "its"),
    Bug("clear-does-nothing", f"{VGIC}.its.commands:_clear", "event.lpi.pending_latch = False", "pass", "its"),
    Bug(
        "mapc-moves-nothing", f"{VGIC}.its.its:Its.map_collection",
        'self.dist.backlog.add("move to", target, dict.fromkeys(e.lpi.intid for e in self.events_of(collection)))',
        "pass", "its",
    ),
    Bug(
        "lpi-config-not-cached", f"{VGIC}.its.its:Its.trigger",
        "lpi.pending_latch = True",
        "lpi.pending_latch = True\nlpis.invalidate(dist, lpi)", "its",
    ),
    Bug("lpi-with-lpis-off", f"{VGIC}.its.its:Its.trigger", "not dist.cpu(target).lpis_enabled", "False", "its"),
    Bug("lpi-priority-bits", f"{VGIC}.lpi:_configure", "value & arch.LPI_PRIORITY & PRIORITY_MASK", "value", "its"),
    Bug(
        "lpi-stays-active", f"{ICH}:VirtualCpuInterface.activate",
        "LR_ACTIVE if intid < FIRST_LPI else 0",
        "LR_ACTIVE", "its",
    ),
)  # fmt: skip
BY_NAME = by_name(BUGS)
