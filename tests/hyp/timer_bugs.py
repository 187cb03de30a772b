"""Bugs to plant in the timers, for a campaign that has to find them.

A bug is one place in the source of a function: the text that is right becomes one that is wrong, and the function goes
on with the code of that.
"""

from __future__ import annotations
import __future__ as future

import ast
import inspect
import textwrap
from types import CodeType, FunctionType
from typing import NamedTuple

from armvirt.arch import timer as arch
from armvirt.hw import pe
from armvirt.hw import timer as hw
from armvirt.hyp import arch_timer, timer_context, vcpu
from armvirt.hyp.vgic import banks, deactivation, entry, lr
from armvirt.hyp.vgic.core import Vgic

Timer, Virtualized, VmData = hw.GenericTimer, arch_timer.ArchTimer, timer_context.ArchTimerVmData


class Bug(NamedTuple):
    """``right`` in the source of ``function`` (a function, or a property) becomes ``wrong``; it is there once.

    ``seed``: with which case to begin, for what takes a rare one.
    """

    name: str
    function: object
    right: str
    wrong: str
    seed: int = 0

    @property
    def target(self) -> FunctionType:
        function = self.function.fget if isinstance(self.function, property) else self.function
        assert isinstance(function, FunctionType)
        return function

    def code(self) -> CodeType:
        """The code of the function with the bug in it. ValueError if there is no place for it, or more than one."""
        function = self.target
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.right) != 1:
            raise ValueError(f"{self.name}: its place is in {function.__qualname__} {source.count(self.right)} times")
        tree = ast.parse(source.replace(self.right, self.wrong))
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef)
        definition.decorator_list = []
        flags = future.annotations.compiler_flag
        made: dict[str, FunctionType] = {}
        exec(compile(tree, f"<{self.name}>", "exec", flags, dont_inherit=True), function.__globals__, made)
        return made[function.__name__].__code__


BUGS = (
    # The PE's comparators and counter
    Bug("compare-is-signed", hw.output, "now >= cval", "now ^ 1 << 63 >= cval ^ 1 << 63"),
    Bug("compare-is-strict", hw.output, "now >= cval", "now > cval"),
    Bug("imask-ignored", hw.output, "ctl & CTL_WRITABLE == CTL_ENABLE", "ctl & CTL_ENABLE"),
    Bug("line-not-lowered", Timer.update, "if level != timer.line:", "if level and not timer.line:"),
    Bug("compare-without-offset", Timer.timer_count, "- offset", ""),
    Bug("cntpoff-ignored", Timer.physical_offset, "self.cntpoff if self.cnthctl & _ECV else 0", "0"),
    Bug("istatus-masked", Timer.read, "timer.ctl & CTL_ENABLE and", "timer.ctl & CTL_WRITABLE == CTL_ENABLE and"),
    Bug("istatus-is-written", Timer._set_comparator, "value & CTL_WRITABLE", "value & 7"),
    Bug("tval-without-offset", Timer._set_comparator, "self.timer_count(which.timer)", "self.counter.count()"),
    Bug("tval-not-sign-extended", arch.sign_extend_32, "if low >> 31", "if False"),
    Bug("tval-is-64-bits", arch.tval_of, "& 0xFFFF_FFFF", "& MASK64"),
    Bug("deadline-late", hw.SystemCounter._ns_of_elapsed, "-(-ticks * NS_PER_SECOND // self.frequency_hz)",
        "ticks * NS_PER_SECOND // self.frequency_hz + 1"),
    Bug("deadline-from-a-whole-tick", hw.SystemCounter.ns_after,
        "self._ns_of_elapsed(now * self.frequency_hz // NS_PER_SECOND + ticks)", "now + self._ns_of_elapsed(ticks)"),
    Bug("deadline-of-one-timer", Timer.next_rise, "(self.vtimer, self.ptimer)", "(self.vtimer,)"),
    Bug("engine-runs-on", pe.Pe._deadline, "state.count_base + max(0,", "state.count_base + max(1,"),
    Bug("engine-without-cntvoff", pe.Pe._timer_changed, "= timer.cntvoff,", "= 0,"),
    Bug("cnthctl-layout", Timer.controls, "if self.e2h else", "if not self.e2h else"),
    Bug("el0-may-read-cntvctss", pe.Pe._counter, "state.el == 0 and", "False and"),
    Bug("event-at-the-other-edge", arch.ticks_to_edge, "0 if control & CntKctl.EVNTDIR else 1 << bit", "0"),
    Bug("evntis-ignored", arch.ticks_to_edge, "EVNTIS_SHIFT if control & CntKctl.EVNTIS else 0", "0"),
    # The VM's offsets
    Bug("virtual-count-starts-anywhere", VmData.__init__, "counter.count() - virtual_start", "counter.count()"),
    Bug("cnt-in-the-wrong-direction", VmData.set_count, "self.counter.count() - count", "count - self.counter.count()"),
    Bug("cnt-after-counter-offset", VmData.set_count, "if self.counter_offset_set:", "if False:"),
    Bug("counter-offset-of-one", VmData.set_counter_offset, "offset & MASK64, offset & MASK64",
        "offset & MASK64, self.poffset"),
    Bug("offset-moves-under-the-hardware", VmData._move, "timer.offset_moves()", "pass"),
    Bug("level-not-retracted", VmData._move, "timer.offset_changed()", "pass"),
    Bug("flag-of-the-offset-not-restored", VmData.load, 'bool(state["counter_offset_set"])', "False"),
    Bug("vcpu-offset-ignored", timer_context.ArchTimerOffset.value, "+ (self.vcpu_offset or 0)", ""),
    Bug("vcpu-offset-not-saved", Virtualized.load, 'saved["vcpu_offset"]', "None"),
    # What KVM does with one timer
    Bug("should-fire-is-strict", timer_context.timer_should_fire, "cval <= now", "cval < now"),
    Bug("istatus-of-a-read-is-strict", timer_context.ctl_with_status, "cval <= now", "cval < now"),
    Bug("masked-timers-fire", timer_context.timer_can_fire, "== CTL_ENABLE", "& 1 == 1"),
    Bug("offset-not-restored", Virtualized._restore, "context.offset.value, context.ctl", "0, context.ctl"),
    Bug("timer-left-on-after-put", Virtualized._save, "context, 0, 0,", "context, 0, context.ctl,"),
    Bug("cval-not-saved", Virtualized._save, "context.ctl, context.cval = self._ctl_cval(context)",
        "context.ctl = self._ctl_cval(context)[0]"),
    Bug("delta-rounds-down", Virtualized._delta_to, "ns_after(ticks)", "ns_after(ticks - 1)"),
    Bug("hrtimer-late", Virtualized.timer_emulate, "+ self.compute_delta(context)",
        "+ 1 + self.compute_delta(context)"),
    Bug("emulated-level-not-lowered", Virtualized.timer_emulate, "if level != context.irq_level:",
        "if level and not context.irq_level:"),
    Bug("emulated-line-outlives-roll-over", Virtualized.sync, "self.timer_emulate(context)", "pass"),
    Bug("hrtimer-does-nothing", Virtualized._hrtimer_expired, "self.update_irq(context, True)", "pass"),
    Bug("level-told-once", Virtualized.update_irq, "if self.cpu.enabled:", "if self.cpu.enabled and changed:"),
    Bug("host-interrupt-not-passed-on", Virtualized.host_irq, "self.update_irq(context, True)", "pass"),
    Bug("level-not-sampled-at-load", Virtualized._load_gic, "self.update_irq(context, self.should_fire(context))",
        "pass"),
    Bug("trapped-tval-without-offset", Virtualized._write, "self.now(context)", "self.vm_data.counter.count()"),
    Bug("no-trap-for-a-moved-counter", Virtualized._set_traps, "0 if moved else _PCTEN", "_PCTEN"),
    Bug("no-trap-without-cntpoff", Virtualized._set_traps, "if moved and not self.vm_data.cntpoff", "if False"),
    Bug("ecv-not-set", Virtualized._allow, "(int(CntHctl.ECV) if self.vm_data.cntpoff else 0)", "0"),
    Bug("shifted-cval-wraps", Virtualized._shift, "max(context.cval + offset - rolled, 0)",
        "context.cval + offset & MASK64"),
    Bug("shift-not-undone", Virtualized._ctl_cval, "if not self._shifted(context):", "if True:"),
    # Sleeping vCPUs
    Bug("background-timer-of-one", Virtualized._waits, "for c in self.cpu.contexts", "for c in (self.cpu.vtimer,)"),
    Bug("background-timer-late", Virtualized.blocking, "self.clock.now + min(deltas)",
        "self.clock.now + min(deltas) + 1"),
    Bug("background-timer-wakes-nobody", Virtualized._bg_timer_expired, "self.wake()", "pass"),
    Bug("sleeper-does-not-see-the-counter-move", Virtualized.offset_changed, "if self.blocked:", "if False:"),
    Bug("sleeper-does-not-see-one-reg", Virtualized._software_changed, "if self.blocked:", "if False:"),
    Bug("sleep-not-saved", Virtualized.load, 'bool(state["blocked"])', "False"),
    Bug("timers-not-loaded", vcpu.Vcpu.load, "self.timer.vcpu_load(pe.timer)", "pass"),
    Bug("wfi-ignores-the-mask", Vgic.pending, "and i.priority < mask", ""),
    # Mapped interrupts
    Bug("fallen-line-stays-in-its-list-register", entry._fell, "return not irq.get_input_level()", "return False"),
    Bug("fallen-line-outside-is-offered", entry._resample, "if not irq.sample_line()", "if False", 90),
    Bug("latch-waits-after-the-end", entry._fell, "return not value & LR_STATE and not irq.offered", "return False",
        90),
    Bug("line-not-sampled-at-fold", lr.fold, "return not irq.sample_line()", "return False"),
    Bug("line-kept-at-populate", lr.populate, "irq.line_level = False  # sampled", "pass  # sampled",
        20),
    Bug("ispendr-reads-the-old-line", banks._pending, "irq.mapped_level and", "False and"),
    Bug("icactiver-does-not-look-at-the-line", deactivation.change_active, "irq.sample_line()", "pass",
        200),
)  # fmt: skip
BY_NAME = {bug.name: bug for bug in BUGS}
