"""Actions of guests, the VMM and time on the timers. Each is done to armvirt and to the oracle
(`timer_twin.Twin`).

Operands are small integers, so that a random generator and hypothesis can both make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyp_tools import GICR
from timer_rig import COUNTERS
from timer_twin import (
    END_OF_TIME,
    GICR_SIZE,
    ICACTIVER0,
    ICENABLER0,
    ICPENDR0,
    INTID,
    ISACTIVER0,
    ISENABLER0,
    ISPENDR0,
    MASK64,
    ONE_REG,
    REGISTERS,
    TIMER_ID,
    TIMERS,
    Act,
    Twin,
)
from timermodel import Register, Which

from armvirt.arch.esr import EC
from armvirt.arch.gic import SPURIOUS

WHICH: dict[int, Which] = {27: "v", 30: "p"}
EDGES = (0, 1, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, MASK64)
BUSY_LIMIT_NS = 3000
PRIORITIES = (0x00, 0x40, 0x80, 0x80, 0xA0, 0xF0, 0xF8)
MASKS = (0xFF, 0xFF, 0xFF, 0xF8, 0xA0, 0x80, 0x40, 0x00)


def _timer(x: int) -> Which:
    return TIMERS[x & 1]


def _count(twin: Twin, n: int, which: Which, y: int) -> int:
    """A 64-bit count: near the timer's present one, near an edge, or anywhere."""
    kind, rest = y & 7, y >> 3
    near = (rest & 0xFF) - 64
    if kind < 3:
        return twin.model.view(n, which) + near & MASK64
    if kind == 3:
        return twin.model.view(n, which) + (1 << (rest >> 8) % 64) + near & MASK64
    if kind < 6:
        return EDGES[(rest >> 8) % len(EDGES)] + near & MASK64
    return rest * 0x9E37_79B9_7F4A_7C15 & MASK64


def _offset(y: int) -> int:
    kind, rest = y & 3, y >> 2
    near = (rest & 0xFF) - 128
    if kind == 0:
        return 0
    return (
        EDGES[(rest >> 8) % len(EDGES)] + near if kind < 3 else rest * 0x9E37_79B9_7F4A_7C15
    ) & MASK64


def _value(twin: Twin, n: int, which: Which, register: Register, y: int) -> int:
    if register == "ctl":
        return (1, 1, 1, 1, 3, 0, 2, 5)[y & 7]
    if register == "cval":
        return _count(twin, n, which, y)
    rest = y >> 3
    return (rest % 64, -(rest % 64), rest % 4096, 0x7FFF_FFFF, 0x8000_0000, y, y << 32 | 5, -1)[
        y & 7
    ] & MASK64


def _name(which: Which, register: Register) -> str:
    return f"CNT{which.upper()}_{register.upper()}_EL0"


def _access(
    twin: Twin, n: int, name: str, which: Which, counter: bool, do: Callable[[], int | None]
) -> int | None:
    """Do an access, and look whether it reached EL2: what KVM sets in CNTHCTL_EL2 depends on the
    kind of host.

    The physical timer traps where EL2 emulates it, or its offset; the counter where it has an
    offset and hardware none (timer_set_traps). The self-synchronised counters are no registers of
    the engine, and not its to count.
    """
    (before, _), form = twin.rig.traps(n), twin.shape.form
    offset = twin.physical_offset(n)
    answer = do()
    if answer is None or name.endswith("SS_EL0"):
        return answer
    emulated_offset = offset != 0 and not form.cntpoff
    trapped = which == "p" and (emulated_offset or not (counter or form.vhe))
    after, exception_class = twin.rig.traps(n)
    traps = (
        after != before and exception_class == EC.SYSREG
    )  # stage 2 may have been filled on the way
    assert traps == trapped, f"{name} on vCPU {n}: traps is {traps}"
    return answer


def write_timer(twin: Twin, n: int, x: int, y: int) -> None:
    """MSR of CTL, CVAL or TVAL at EL1."""
    if (by := twin.executor(n)) is None:
        return
    which, register = _timer(x), REGISTERS[(x >> 1) % 3]
    value, name = _value(twin, by, which, register, y), _name(which, register)
    _access(twin, by, name, which, False, lambda: twin.guest(by, f"msr {name}", value))
    twin.model.write(by, which, register, value)
    twin.elapse()


def read_timer(twin: Twin, n: int, x: int, _: int) -> None:
    """MRS of CTL, CVAL, TVAL or a counter at EL1."""
    if (by := twin.executor(n)) is None:
        return
    _read(twin, by, x, lambda name: twin.guest(by, f"mrs {name}"))


def _read(twin: Twin, n: int, x: int, do: Callable[[str], int | None]) -> None:
    """Read a register and compare, unless the access was refused."""
    which = _timer(x)
    kind = (x >> 1) % 5
    counter = kind > 2
    if counter:
        name = COUNTERS[(kind - 3 if twin.shape.ecv else 0) * 2 + (which == "p")]
        register = "cnt"
    else:
        register = REGISTERS[kind]
        name = _name(which, register)
    ours = _access(twin, n, name, which, counter, lambda: do(name))
    if ours is not None:
        theirs, known = (
            twin.model.read(n, which, register),
            ~twin.model.unknown_bits(n, which, register),
        )
        assert ours & known == theirs & known, (
            f"{name} of vCPU {n} reads {ours:#x}, in the oracle {theirs:#x}"
        )
    twin.elapse()


def access_el0(twin: Twin, n: int, x: int, y: int) -> None:
    """An access at EL0, which CNTKCTL_EL1 allows or sends to EL1."""
    if (by := twin.executor(n)) is None:
        return
    if y & 1:
        _read(twin, by, x, lambda name: _el0(twin, by, name, f"mrs {name}", 0))
        return
    which, register = _timer(x), REGISTERS[(x >> 1) % 3]
    value, name = _value(twin, by, which, register, y >> 1), _name(which, register)
    if (
        _access(twin, by, name, which, False, lambda: _el0(twin, by, name, f"msr {name}", value))
        is not None
    ):
        twin.model.write(by, which, register, value)
    twin.elapse()


def _el0(twin: Twin, n: int, name: str, instruction: str, value: int) -> int | None:
    answer = twin.rig.execute_el0(n, instruction, value)
    allowed = twin.model.el0_access_allowed(n, name)
    assert (answer is not None) == allowed, f"{name} at EL0 of vCPU {n}: allowed is {not allowed}"
    return answer


def write_cntkctl(twin: Twin, n: int, x: int, y: int) -> None:
    """Access for EL0 and the event stream."""
    if (by := twin.executor(n)) is None:
        return
    value = y & 0x2_03FF if x & 3 else 0x303 | y & 4
    twin.guest(by, "msr CNTKCTL_EL1", value)
    twin.model.set_cntkctl(by, value)
    twin.elapse()


def set_one_reg(twin: Twin, n: int, x: int, y: int) -> None:
    """The VMM writes CTL, CVAL or the counter, of a vCPU wherever it is; the counter is the whole
    VM's."""
    which, kind = _timer(x), (x >> 1) % 3
    vcpu = twin.rig.vcpus[n]
    if kind < 2:
        register = REGISTERS[kind]
        value = _value(twin, n, which, register, y)
        vcpu.set_one_reg(ONE_REG[which, register], value)
        twin.model.write(n, which, register, value)
        twin.rearmed(n)
        return
    value = _count(twin, n, which, y)
    vcpu.set_one_reg(ONE_REG[which, "cnt"], value)
    if twin.moves_counters:
        set_offset = twin.model.set_voffset if which == "v" else twin.model.set_poffset
        set_offset(twin.model.physical_count - value)
        twin.all_rearmed()


def set_counter_offset(twin: Twin, _: int, x: int, y: int) -> None:
    """KVM_ARM_SET_COUNTER_OFFSET: both counters of the VM; from then on a write of CNT by ONE_REG
    is ignored."""
    value = _offset(y)
    twin.rig.vm.set_counter_offset(value)
    twin.model.set_voffset(value)
    twin.model.set_poffset(value)
    twin.moves_counters = False
    twin.all_rearmed()


def set_vcpu_offset(twin: Twin, n: int, x: int, y: int) -> None:
    which, value = _timer(x), _offset(y)
    twin.rig.vcpus[n].timer.set_vcpu_offset(TIMER_ID[which], value)
    twin.model.set_vcpu_offset(n, which, value)
    twin.rearmed(n)


def put(twin: Twin, n: int, _: int, __: int) -> None:
    """Preempted: another thread of the host has the PE."""
    if (vcpu := twin.rig.vcpus[n]).pe is not None:
        vcpu.put()


def migrate(twin: Twin, n: int, x: int, _: int) -> None:
    """To a PE, from which whoever is there goes."""
    if n in twin.rig.runnable():
        twin.rig.place(n, x % twin.shape.pcpus)


def wait_for_interrupt(twin: Twin, n: int, _: int, __: int) -> None:
    """WFI blocks until there is an interrupt, or does nothing.

    It may end for no reason. This vGIC does so once for a line that is high and was not reported,
    because the interrupt is active; the second time it must block.
    """
    for last in (False, True):
        if n not in twin.rig.runnable():
            return
        stays, high = twin.wakes_wfi(n), any(twin.model.line(n, which) for which in TIMERS)
        wakes = twin.wake_instant(n)
        twin.guest(n, "wfi")
        awake_already = (
            not stays and wakes == twin.rig.now
        )  # gone to sleep, and woken before anybody looks
        slept = twin.rig.blocked(n) or awake_already
        twin.settle()
        if slept or stays or last or not high:
            assert slept != stays, f"WFI of vCPU {n}: blocks is {slept}"
            return


def change_bit(twin: Twin, n: int, x: int, _: int) -> None:
    """Enable, disable, set or clear pending, set or clear active: a bit of the redistributor, by
    whichever vCPU."""
    if (by := twin.executor(n if x & 0x100 else x >> 9)) is None:
        return
    which, kind = _timer(x), (0, 0, 1, 2, 3, 4, 5, 5)[x >> 1 & 7]
    ppi = twin.model.ppi(n, which)
    if kind < 2:
        ppi.enabled = kind == 0
    elif kind < 4:
        ppi.latch = kind == 2
    else:
        ppi.active = kind == 4
    offset = (ISENABLER0, ICENABLER0, ISPENDR0, ICPENDR0, ISACTIVER0, ICACTIVER0)[kind]
    twin.gicr(by, n, offset, 1 << INTID[which])


def change_priority(twin: Twin, n: int, x: int, y: int) -> None:
    """Of an interrupt that is neither active nor to be ended: else the effect is IMPLEMENTATION
    DEFINED (IHI 0069, GICR_IPRIORITYR<n>)."""
    which = _timer(x)
    ends = any(running == which for running, _ in twin.model.interface(n).running)
    if (by := twin.executor(n)) is not None and not twin.model.ppi(n, which).active and not ends:
        twin.set_priority(by, n, which, PRIORITIES[y % len(PRIORITIES)])


def inspect(twin: Twin, n: int, x: int, _: int) -> None:
    """A guest reads enabled, pending and active of both PPIs of any vCPU that is loaded.

    The line of one that is not is as its last put left it, in KVM: nobody looks while nothing can
    be delivered.
    """
    by = twin.executor(x >> 4)
    if by is None or twin.rig.vcpus[n].pe is None:
        return
    offset = (ISENABLER0, ISPENDR0, ISACTIVER0)[x % 3]
    twin.rig.turn_to(by)
    if twin.rig.vcpus[n].pe is None:  # it had to make room
        return
    twin.rig.settle()
    ours = twin.guest(by, "ldr", 0, GICR + n * GICR_SIZE + offset)
    ppis = {which: twin.model.ppi(n, which) for which in TIMERS}
    bits = {
        which: (ppi.enabled, twin.model.pending(n, which), ppi.active)[x % 3] for which, ppi in ppis.items()
    }  # fmt: skip
    for which, theirs in bits.items():
        assert bool(ours >> INTID[which] & 1) == theirs, (
            f"{offset:#x} of vCPU {n}: {ours:#x}, the oracle has {bits}"
        )
    twin.elapse()


def distributor(twin: Twin, n: int, x: int, _: int) -> None:
    if (by := twin.executor(n)) is not None:
        twin.enable_distributor(by, x % 4 != 0)


def group_enable(twin: Twin, n: int, x: int, _: int) -> None:
    if (by := twin.executor(n)) is not None:
        twin.enable_group(by, x % 4 != 0)


def priority_mask(twin: Twin, n: int, x: int, _: int) -> None:
    if (by := twin.executor(n)) is not None:
        twin.write_icc(by, "PMR", MASKS[x % len(MASKS)])


def binary_point(twin: Twin, n: int, x: int, _: int) -> None:
    """While nothing is active: it says which bits of a priority were compared."""
    by = twin.executor(n)
    if by is not None and not twin.model.interface(by).running:
        point = max(3, x % 8)
        twin.write_icc(by, "BPR1", point)
        twin.model.interface(by).group_priority_mask = 0xFF << point & 0xFF


def eoi_mode(twin: Twin, n: int, x: int, _: int) -> None:
    """While nothing is active: an end of interrupt has to fit its acknowledge."""
    by = twin.executor(n)
    if by is None or twin.model.interface(by).running or twin.dropped[by]:
        return
    twin.eoi_mode[by] = x & 1
    twin.write_icc(by, "CTLR", (x & 1) << 1)


def acknowledge(twin: Twin, n: int, _: int, __: int) -> None:
    if (by := twin.executor(n)) is None:
        return
    allowed = {INTID[which] for which in twin.model.candidates(by)} or {SPURIOUS}
    ours = twin.guest(by, "mrs IAR1")
    assert ours in allowed, f"IAR of vCPU {by}: {ours}, the oracle allows {allowed}"
    if ours != SPURIOUS:
        assert twin.model.ack(by, WHICH[ours]) == WHICH[ours]
    twin.elapse()


def end(twin: Twin, n: int, _: int, __: int) -> None:
    """EOIR of what was acknowledged last; with EOImode 1 it is active still."""
    by = twin.executor(n)
    if by is None or not (running := twin.model.interface(by).running):
        return
    which = running[-1][0]
    if twin.eoi_mode[by]:
        twin.model.interface(by).drop_priority(which)
        twin.dropped[by].add(which)
    else:
        twin.model.eoi(by, which)
    twin.write_icc(by, "EOIR1", INTID[which])


def deactivate(twin: Twin, n: int, x: int, _: int) -> None:
    """DIR, of what had its priority dropped."""
    by = twin.executor(n)
    if by is None or not twin.dropped[by]:
        return
    which = sorted(twin.dropped[by])[x % len(twin.dropped[by])]
    twin.dropped[by].remove(which)
    twin.model.ppi(by, which).active = False
    twin.write_icc(by, "DIR", INTID[which])


def running_priority(twin: Twin, n: int, _: int, __: int) -> None:
    if (by := twin.executor(n)) is None:
        return
    ours, theirs = twin.guest(by, "mrs RPR"), twin.model.interface(by).running_priority
    assert ours == theirs, f"RPR of vCPU {by}: {ours:#x}, in the oracle {theirs:#x}"
    twin.elapse()


def _instants(twin: Twin) -> Sequence[int]:
    """When something happens: a line rises or falls, an interrupt is delivered."""
    model, found = twin.model, []
    for n in range(twin.shape.vcpus):
        for which in TIMERS:
            found += [
                model.next_rise(n, which),
                model.next_fall(n, which),
                model.delivery_instant(n, which),
            ]
    return sorted({ns for ns in found if ns is not None and ns > model.now})


def _target(twin: Twin, x: int, y: int) -> int:
    """Until when to wait: mostly around an instant at which something happens, and 1 ns at
    least."""
    now, instants = twin.rig.now, _instants(twin)
    when = now + 1 + y % 64
    if x & 0xF < 9 and instants:
        when = instants[(x >> 4) % min(len(instants), 3)] + (-1, 0, 1, 1)[y & 3]
    elif x & 0xF < 12:
        when = now + 1 + y % 4096
    elif x & 0xF == 12:
        when = now + (1 << y % 50)
    return max(when, now + 1) if when < END_OF_TIME else now + 1


def advance(twin: Twin, n: int, x: int, y: int) -> None:
    """Time passes while a guest has its interrupts masked, or waits with them open and must be
    interrupted at the exact ns: not yet when the interrupt is signalled, but one instruction
    later."""
    when = _target(twin, x, y)
    sleepers = {v: twin.wake_instant(v) for v in range(twin.shape.vcpus) if twin.rig.blocked(v)}
    if (by := twin.executor(n)) is None:
        twin.rig.run_until(when)
    else:
        opened, delivery = bool(y & 0x100), twin.model.next_delivery(by)
        taken = twin.rig.wait(
            by, when, busy=when - twin.rig.now < BUSY_LIMIT_NS and bool(y & 0x200), opened=opened
        )
        expected = opened and delivery is not None and delivery[0] < when
        assert taken == expected, (
            f"until {when} ns vCPU {by} took an interrupt: {taken}; the oracle has {delivery}"
        )
    twin.elapse()
    for v, wakes in sleepers.items():
        expected = wakes is not None and wakes <= when
        assert twin.rig.blocked(v) != expected, (
            f"at {when} ns vCPU {v} is awake: {not expected}, its time was {wakes}"
        )


def pause(twin: Twin, _: int, x: int, y: int) -> None:
    """The VMM stops its vCPUs for a while; one that sleeps would not have been woken meanwhile."""
    if len(twin.rig.runnable()) < twin.shape.vcpus:
        return
    for n in range(twin.shape.vcpus):
        put(twin, n, 0, 0)
    twin.rig.clock.advance_to(_target(twin, x, y))
    twin.elapse()


def snapshot(twin: Twin, _: int, __: int, ___: int) -> None:
    twin.rig = twin.rig.successor()


#: Everything that can be done, with how often a random driver takes it.
ACTIONS: tuple[tuple[int, Act], ...] = (
    (24, write_timer), (8, read_timer), (6, access_el0),
    (3, write_cntkctl), (10, set_one_reg),
    (1, set_counter_offset), (4, set_vcpu_offset),
    (3, put), (5, migrate), (8, wait_for_interrupt),
    (8, change_bit), (3, change_priority), (5, inspect),
    (1, distributor), (2, group_enable), (3, priority_mask),
    (1, binary_point), (1, eoi_mode), (16, acknowledge),
    (14, end), (4, deactivate), (1, running_priority),
    (40, advance), (2, pause), (0, snapshot),
)  # fmt: skip
