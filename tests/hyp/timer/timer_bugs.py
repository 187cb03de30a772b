"""Bugs to plant in the timers, which the comparison with the oracle has to find."""

from __future__ import annotations

from planting import Bug, by_name

ARCH, TIMER, PE, VCPU = (
    "armvirt.arch.timer",
    "armvirt.hw.timer",
    "armvirt.hw.pe",
    "armvirt.hyp.vcpu.parts",
)
ARCH_TIMER, CONTEXT, REGISTERS, VGIC = (
    "armvirt.hyp.timer.arch_timer",
    "armvirt.hyp.timer.context",
    "armvirt.hyp.timer.registers",
    "armvirt.hyp.vgic",
)

BUGS = (
    # The PE's comparators and counter
    Bug("compare-is-signed", f"{TIMER}:output", "now >= cval", "now ^ 1 << 63 >= cval ^ 1 << 63"),
    Bug("compare-is-strict", f"{TIMER}:output", "now >= cval", "now > cval"),
    Bug("imask-ignored", f"{TIMER}:output", "ctl & CTL_WRITABLE == CTL_ENABLE", "ctl & CTL_ENABLE"),
    Bug("line-not-lowered", f"{TIMER}:GenericTimer.update", "level != timer.line", "level and not timer.line"),
    Bug(
        "compare-without-offset", f"{TIMER}:GenericTimer.timer_count",
        "self.counter.count() - offset",
        "self.counter.count()",
    ),
    Bug(
        "cntpoff-ignored", f"{TIMER}:GenericTimer.physical_offset",
        "self.cntpoff if self.cnthctl & CNTHCTL_ECV else 0",
        "0",
    ),
    Bug(
        "istatus-masked", f"{TIMER}:GenericTimer.read",
        "timer.ctl & CTL_ENABLE",
        "timer.ctl & CTL_WRITABLE == CTL_ENABLE",
    ),
    Bug("istatus-is-written", f"{TIMER}:GenericTimer._set_comparator", "value & CTL_WRITABLE", "value & 7"),
    Bug(
        "tval-without-offset", f"{TIMER}:GenericTimer._set_comparator",
        "self.timer_count(which.timer)",
        "self.counter.count()",
    ),
    Bug("tval-not-sign-extended", f"{ARCH}:sign_extend_32", "low >> 31", "False"),
    Bug("tval-is-64-bits", f"{ARCH}:tval_of", "cval - now & 0xFFFF_FFFF", "cval - now & MASK64"),
    Bug(
        "deadline-late", f"{TIMER}:SystemCounter._ns_of_elapsed",
        "-(-ticks * NS_PER_SECOND // self.frequency_hz)",
        "ticks * NS_PER_SECOND // self.frequency_hz + 1",
    ),
    Bug(
        "deadline-from-a-whole-tick", f"{TIMER}:SystemCounter.ns_after",
        "self._ns_of_elapsed(now * self.frequency_hz // NS_PER_SECOND + ticks)",
        "now + self._ns_of_elapsed(ticks)",
    ),
    Bug("deadline-of-one-timer", f"{TIMER}:GenericTimer.next_rise", "(self.vtimer, self.ptimer)", "(self.vtimer,)"),
    Bug(
        "engine-runs-on", f"{PE}:Pe._deadline",
        "max(0, -(-(until - state.ns_base) // self.ns_per_insn))",
        "max(1, -(-(until - state.ns_base) // self.ns_per_insn))",
    ),
    Bug("engine-without-cntvoff", f"{PE}:Pe._timer_changed", "timer.cntvoff", "0"),
    Bug("cnthctl-layout", f"{TIMER}:GenericTimer.controls", "self.e2h", "not self.e2h"),
    Bug("el0-may-read-cntvctss", f"{PE}:Pe._counter", "state.el == 0", "False"),
    Bug("event-at-the-other-edge", f"{ARCH}:ticks_to_edge", "0 if control & CntKctl.EVNTDIR else 1 << bit", "0"),
    Bug("evntis-ignored", f"{ARCH}:ticks_to_edge", "EVNTIS_SHIFT if control & CntKctl.EVNTIS else 0", "0"),
    # The VM's offsets
    Bug(
        "virtual-count-starts-anywhere", f"{CONTEXT}:ArchTimerVmData.__init__",
        "counter.count() - virtual_start",
        "counter.count()",
    ),
    Bug(
        "cnt-in-the-wrong-direction", f"{CONTEXT}:ArchTimerVmData.set_count",
        "self.counter.count() - count",
        "count - self.counter.count()",
    ),
    Bug("cnt-after-counter-offset", f"{CONTEXT}:ArchTimerVmData.set_count", "self.counter_offset_set", "False"),
    Bug(
        "counter-offset-of-one", f"{CONTEXT}:ArchTimerVmData.set_counter_offset",
        "self._move(offset & MASK64, offset & MASK64)",
        "self._move(offset & MASK64, self.poffset)",
    ),
    Bug("offset-moves-under-the-hardware", f"{CONTEXT}:ArchTimerVmData._move", "timer.offset_moves()", "pass"),
    Bug("level-not-retracted", f"{CONTEXT}:ArchTimerVmData._move", "timer.offset_changed()", "pass"),
    Bug(
        "flag-of-the-offset-not-restored", f"{CONTEXT}:ArchTimerVmData.load",
        "load_fields(self, self.SAVED, state)",
        "load_fields(self, self.SAVED[:2], state)",
    ),
    Bug(
        "vcpu-offset-ignored", f"{CONTEXT}:ArchTimerOffset.value",
        "vm_offset + (self.vcpu_offset or 0)",
        "vm_offset",
    ),
    Bug("vcpu-offset-not-saved", f"{ARCH_TIMER}:ArchTimer.load", 'saved["vcpu_offset"]', "None"),
    # What KVM does with one timer
    Bug("should-fire-is-strict", f"{CONTEXT}:timer_should_fire", "cval <= now", "cval < now"),
    Bug("istatus-of-a-read-is-strict", f"{REGISTERS}:ctl_with_status", "cval <= now", "cval < now"),
    Bug(
        "masked-timers-fire", f"{CONTEXT}:timer_can_fire",
        "ctl & CTL_WRITABLE == CTL_ENABLE",
        "ctl & CTL_WRITABLE & 1 == 1",
    ),
    Bug("offset-not-restored", f"{ARCH_TIMER}:ArchTimer._restore", "context.offset.value", "0"),
    Bug(
        "timer-left-on-after-put", f"{ARCH_TIMER}:ArchTimer._save",
        "self._program(hw, context, 0, 0, hw.comparator(context.name).cval)",
        "self._program(hw, context, 0, context.ctl, hw.comparator(context.name).cval)",
    ),
    Bug(
        "cval-not-saved", f"{ARCH_TIMER}:ArchTimer._save",
        "context.ctl, context.cval = self.ctl_cval(context)",
        "context.ctl = self.ctl_cval(context)[0]",
    ),
    Bug(
        "delta-rounds-down", f"{ARCH_TIMER}:ArchTimer._delta_to",
        "self.vm_data.counter.ns_after(ticks)",
        "self.vm_data.counter.ns_after(ticks - 1)",
    ),
    Bug(
        "hrtimer-late", f"{ARCH_TIMER}:ArchTimer.timer_emulate",
        "self.clock.now + self.compute_delta(context)",
        "self.clock.now + 1 + self.compute_delta(context)",
    ),
    Bug(
        "emulated-level-not-lowered", f"{ARCH_TIMER}:ArchTimer.timer_emulate",
        "level != context.irq_level",
        "level and not context.irq_level",
    ),
    Bug("emulated-line-outlives-roll-over", f"{ARCH_TIMER}:ArchTimer.sync", "self.timer_emulate(context)", "pass"),
    Bug(
        "hrtimer-does-nothing", f"{ARCH_TIMER}:ArchTimer._hrtimer_expired",
        "self.update_irq(context, True)",
        "pass",
    ),
    Bug(
        "level-told-once", f"{ARCH_TIMER}:ArchTimer.update_irq",
        "self.cpu.enabled",
        "self.cpu.enabled and changed",
    ),
    Bug(
        "host-interrupt-not-passed-on", f"{ARCH_TIMER}:ArchTimer.host_irq",
        "self.update_irq(context, True)",
        "pass",
    ),
    Bug(
        "level-not-sampled-at-load", f"{ARCH_TIMER}:ArchTimer._load_gic",
        "self.update_irq(context, self.should_fire(context))",
        "pass",
    ),
    Bug(
        "trapped-tval-without-offset", f"{REGISTERS}:_write",
        "timer.now(context)",
        "timer.vm_data.counter.count()",
    ),
    Bug(
        "no-trap-for-a-moved-counter", f"{ARCH_TIMER}:ArchTimer._set_traps",
        "0 if moved else CNTHCTL_PCTEN", "CNTHCTL_PCTEN",
    ),
    Bug(
        "no-trap-without-cntpoff", f"{ARCH_TIMER}:ArchTimer._set_traps",
        "moved and not self.vm_data.cntpoff",
        "False",
    ),
    Bug("ecv-not-set", f"{ARCH_TIMER}:ArchTimer._allow", "CNTHCTL_ECV if self.vm_data.cntpoff else 0", "0"),
    Bug(
        "shifted-cval-wraps", f"{ARCH_TIMER}:ArchTimer._shift",
        "max(context.cval + offset - rolled, 0)",
        "context.cval + offset & MASK64",
    ),
    Bug("shift-not-undone", f"{ARCH_TIMER}:ArchTimer.ctl_cval", "not self._shifted(context)", "True"),
    # Sleeping vCPUs
    Bug("background-timer-of-one", f"{ARCH_TIMER}:ArchTimer._waits", "self.cpu.contexts", "(self.cpu.vtimer,)"),
    Bug(
        "background-timer-late", f"{ARCH_TIMER}:ArchTimer.blocking",
        "self.clock.now + min(deltas)",
        "self.clock.now + min(deltas) + 1",
    ),
    Bug("background-timer-wakes-nobody", f"{ARCH_TIMER}:ArchTimer._bg_timer_expired", "self.wake()", "pass"),
    Bug("sleeper-does-not-see-the-counter-move", f"{ARCH_TIMER}:ArchTimer.offset_changed", "self.blocked", "False"),
    Bug("sleeper-does-not-see-one-reg", f"{ARCH_TIMER}:ArchTimer._software_changed", "self.blocked", "False"),
    Bug("sleep-not-saved", f"{ARCH_TIMER}:ArchTimer.load",
        "load_fields(self, self.SAVED, state)",
        "load_fields(self, self.SAVED[:1], state)",
    ),
    Bug("timers-not-loaded", f"{VCPU}:TimerPart.vcpu_load", "self._timer.vcpu_load(pe.timer)", "pass"),
    Bug(
        "wfi-ignores-the-mask", f"{VGIC}.vgic:Vgic.pending",
        "i.enabled and enables >> i.group & 1 and i.pending and (not i.active) and i.priority < mask",
        "i.enabled and enables >> i.group & 1 and i.pending and not i.active",
    ),
    # Mapped interrupts
    Bug("fallen-line-stays-in-its-list-register", f"{VGIC}.flush:_fell", "not _level(irq)", "False"),
    Bug(
        "fallen-line-outside-is-offered", f"{VGIC}.distributor:Distributor.resample",
        "not irq.sample_line()", "False", seed=90,
    ),
    Bug("latch-waits-after-the-end", f"{VGIC}.list_registers:populate", "irq.hw and not latched", "irq.hw", seed=90),
    Bug("line-not-sampled-at-fold", f"{VGIC}.list_registers:fold", "not irq.sample_line()", "False"),
    Bug("ispendr-reads-the-old-line", f"{VGIC}.registers.irq_registers:_pending", "irq.mapped_level", "False"),
    Bug(
        "icactiver-does-not-look-at-the-line", f"{VGIC}.deactivation:change_active",
        "irq.sample_line()",
        "pass", seed=200,
    ),
)  # fmt: skip
BY_NAME = by_name(BUGS)
