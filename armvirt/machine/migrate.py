"""Migration of a machine to another emulated host while its guest runs, through the KVM API.

The saved state is the state that a VMM can read by the KVM API:

* for each vCPU: the one-regs, the MP state, the events and the address of the stolen time
* for the whole VM: the PSCI version and the bitmaps of the hypercall services, as one-regs
* the attributes of the interrupt controller
* the contents of memory
* the state of the board's devices, which belong to the VMM

The physical counter of the destination host has another value. The restore sets CNTVOFF and CNTPOFF
so that the guest's counters continue.

A snapshot has two more items, so that a correct guest ends at the same instruction as without a
migration. The first item is state that no call of KVM saves and that KVM loses (`InFlight`). The
second item is the virtual time of the emulated host in ns, so that the counters keep their phase
within a tick. A VMM on KVM loses this phase, because the VMM sets a counter in whole ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armvirt.arch import timer
from armvirt.arch.gic import MPIDR_AFF0_TO_2
from armvirt.arch.translation import PAGE_SIZE
from armvirt.board.console import OWNER as CONSOLE_TIMER
from armvirt.errors import LimitError, UserError
from armvirt.hyp.kvm import (
    ONE_REG_ARM64_CORE,
    ONE_REG_ARM64_SYSREG,
    PVTIME_IPA,
    InFlight,
    MpState,
    Vcpu,
    VcpuEvents,
    VcpuGroup,
)
from armvirt.hyp.vcpu.onereg import WORD_PSTATE
from armvirt.machine import Machine, Result, vgic_save
from armvirt.records import NamedTuple
from armvirt.settings import native

if TYPE_CHECKING:
    from collections.abc import Callable

    from armvirt.hyp.vgic.device.its import ItsDevice

PSTATE = ONE_REG_ARM64_CORE | WORD_PSTATE
#: Counters are restored first and controls last: otherwise a timer could fire between the writes.
#: (The ids are KVM's: the ids of CNT and CVAL of the virtual timer are swapped.)
TIMER_ORDER = tuple(
    ONE_REG_ARM64_SYSREG | encoding
    for encoding in (
        timer.CNTV_CVAL_EL0, timer.CNTPCT_EL0, timer.CNTVCT_EL0, timer.CNTP_CVAL_EL0, timer.CNTV_CTL_EL0,
        timer.CNTP_CTL_EL0,
    )
)  # fmt: skip
VIRTUAL_COUNT = ONE_REG_ARM64_SYSREG | timer.CNTV_CVAL_EL0
COUNTER_START = 0x7654_3210_0000
SMP_TOLERANCE_NS = 500_000


class VcpuState(NamedTuple):
    """The saved state of one vCPU. ``registers`` are (id, value) pairs in the order of the restore.
    ``stolen_time`` is the address of the stolen time. ``in_flight`` is the state that no call of
    KVM saves."""

    registers: list[tuple[int, int]]
    mp_state: MpState
    events: VcpuEvents
    stolen_time: int
    in_flight: InFlight


class Snapshot(NamedTuple):
    """The saved state of a machine. ``ns`` is the virtual time of its emulated host at the save, in
    ns.

    ``devices`` has the states of the board's devices, by name. ``timers`` has the timers that the
    devices have armed, as (expiry in ns, owner, kind): the owner is the name of the device, and the
    kind distinguishes its timers. ``lines`` has the levels that the devices drive, by INTID.
    ``memory`` has the pages of RAM that are not all zero, by IPA. ``entropy`` is the state of the
    TRNG. KVM does not migrate the TRNG, because its random numbers come from the host kernel.
    armvirt migrates the TRNG, so that the new machine continues the sequence of random numbers, and
    the runs with and without a migration can be compared.
    """

    ns: int
    vcpus: list[VcpuState]
    gic: list[vgic_save.Saved]
    its: list[vgic_save.Saved]
    memory: dict[int, bytes]
    devices: dict[str, Any]
    timers: list[tuple[int, str, str]]
    lines: dict[int, int]
    entropy: dict[str, Any]


class Ending(NamedTuple):
    """The end of a guest: the result, and the guest's virtual count at the end. ``ticks`` is this
    count. ``frequency`` is the frequency of the counter in Hz."""

    result: Result
    ticks: int
    frequency: int


class Report(NamedTuple):
    """The results of two runs of the same guest. In one run, the guest was moved to another
    emulated host. ``at_ns`` is the guest time of the move in ns, and ``moved`` is the result of
    this run. In the other run, the guest was not moved, and ``straight`` is the result of this run.
    ``differences`` are sentences about the differences between the ends of the two runs. The list
    is empty if there are no differences."""

    at_ns: int
    straight: Result
    moved: Result
    differences: list[str]

    @property
    def same(self) -> bool:
        return not self.differences


def _order(register: int) -> tuple[int, int]:
    """The sort key of a register for the restore. PSTATE is first, because PSTATE selects the stack
    pointer. The timer registers are last."""
    if register in TIMER_ORDER:
        return 2, TIMER_ORDER.index(register)
    return (0 if register == PSTATE else 1), 0


def _save_vcpu(vcpu: Vcpu) -> VcpuState:
    ids = sorted(vcpu.get_reg_list(), key=_order)
    registers = [(each, vcpu.get_one_reg(each)) for each in ids]
    place = vcpu.get_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA)
    return VcpuState(
        registers, vcpu.get_mp_state(), vcpu.get_vcpu_events(), place, vcpu.in_flight()
    )


def save(machine: Machine) -> Snapshot:
    """Save the whole state of a machine. The machine must not run. As on KVM, the ITS writes its
    tables into guest memory."""
    board = machine.board
    cpus = list(board.vcpus)
    if board.config.gic == 3:
        gic = vgic_save.save_v3(
            board.gic, [vcpu.mpidr & MPIDR_AFF0_TO_2 for vcpu in cpus], _high_lines(machine)
        )
    else:
        gic = vgic_save.save_v2(board.gic, [vcpu.id for vcpu in cpus], _only_lines(machine))
    its = vgic_save.save_its(board.gic, board.its) if board.its is not None else []
    devices = {name: device.state() for name, device in board.own_parts.items()}
    return Snapshot(
        machine.ns, [_save_vcpu(vcpu) for vcpu in cpus], gic, its, dict(board.vm.populated_pages()), devices,
        _timers(machine), {wire.intid: wire.device.level for wire in board.wires()},
        dict(board.vm.smccc.trng.state()),
    )  # fmt: skip


def _timers(machine: Machine) -> list[tuple[int, str, str]]:
    """The timers that the board's devices have armed, as (expiry in ns, owner, kind), in the order
    of their expiry. They are read from the clock of the emulated host, because the states of the
    devices do not include them."""
    owners = {*(device.name for device in machine.board.devices.values()), CONSOLE_TIMER}
    entries: Any = machine.board.vm.timers.state()["entries"]
    return [(when, owner, kind) for when, _, owner, kind in entries if owner in owners]


def _set_timers(machine: Machine, timers: list[tuple[int, str, str]]) -> None:
    clock = machine.board.vm.timers
    for _, owner, kind in _timers(machine):  # expiries that were set at power-on
        clock.cancel(owner, kind)
    for when, owner, kind in timers:
        clock.arm(when, owner, kind)


def _high_lines(machine: Machine) -> set[vgic_save.Line]:
    """The inputs of the interrupt controller that are high: the interrupt lines of the devices, and
    the outputs of the timers of each vCPU."""
    board = machine.board
    high: set[vgic_save.Line] = {(None, wire.intid) for wire in board.wires() if wire.device.level}
    for vcpu in board.vcpus:
        for attr, register in enumerate((timer.CNTV_CTL_EL0, timer.CNTP_CTL_EL0)):
            if (
                vcpu.get_one_reg(ONE_REG_ARM64_SYSREG | register) & 7
                == timer.CTL_ENABLE | timer.CTL_ISTATUS
            ):
                high.add((vcpu.id, vcpu.get_device_attr(VcpuGroup.TIMER_CTRL, attr)))
    return high


def _only_lines(machine: Machine) -> set[vgic_save.Line]:
    """The inputs of a GICv2 that are high, without those whose interrupt the guest has also made
    pending by a write of ISPENDR. After such a write, the interrupt stays pending when its line
    falls. The attributes of KVM do not show whether an interrupt is pending by its line or by
    ISPENDR, so a VMM on KVM loses the pending state of ISPENDR. This function reads both states
    from the vGIC itself."""
    vgic = machine.board.vm.vgic
    assert vgic is not None
    vgic.sync_all()
    return {
        (vcpu, intid)
        for vcpu, intid in _high_lines(machine)
        if not vgic.dist.irq(vcpu, intid).pending_latch
    }


def restore(machine: Machine, snapshot: Snapshot) -> None:
    """Load a snapshot into a machine on another emulated host. The machine must have the same
    arguments as the saved machine, and must not have run.

    The virtual time of the new host advances to the virtual time of the snapshot, because the
    board's devices use virtual time. The physical counter of the new host keeps its own value.
    """
    board = machine.board
    machine.host.clock.advance_to(snapshot.ns)
    _restore_memory(machine, snapshot.memory)
    for vcpu, saved in zip(board.vcpus, snapshot.vcpus, strict=True):
        for register, value in saved.registers:
            vcpu.set_one_reg(register, value)
        _place_stolen_time(vcpu, saved.stolen_time)
    if board.config.gic == 2:
        _drive_lines(machine, snapshot)
    vgic_save.restore(board.gic, snapshot.gic)
    its: ItsDevice | None = board.its
    if its is not None:
        vgic_save.restore_its(its, snapshot.its)
    for name, device in board.own_parts.items():
        device.load(snapshot.devices[name])
    _set_timers(machine, snapshot.timers)
    board.vm.smccc.trng.load(snapshot.entropy)
    for vcpu, saved in zip(board.vcpus, snapshot.vcpus, strict=True):
        vcpu.set_vcpu_events(saved.events)
        vcpu.set_mp_state(saved.mp_state)
        vcpu.resume(saved.in_flight)


def _place_stolen_time(vcpu: Vcpu, place: int) -> None:
    """Set the address of the vCPU's stolen time. If this address is set already, do nothing,
    because KVM accepts only one write of the address."""
    if place != vcpu.get_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA):
        vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, place)


def _restore_memory(machine: Machine, memory: dict[int, bytes]) -> None:
    vm = machine.board.vm
    for at in [at for at, _ in vm.populated_pages() if at not in memory]:
        vm.write_memory(at, bytes(PAGE_SIZE))
    for at, page in memory.items():
        vm.write_memory(at, page)


def _drive_lines(machine: Machine, snapshot: Snapshot) -> None:
    """Drive the interrupt lines of the devices to their saved levels. This is necessary for a
    GICv2, because its attributes do not have the levels of the lines. A rising line makes an
    edge-triggered interrupt pending. The caller restores the saved pending state afterwards, so the
    interrupt is pending only if it was pending in the snapshot."""
    for intid, level in snapshot.lines.items():
        machine.board.vm.irq_line(intid, bool(level))


def migrate_test(
    image: Any, at_ns: int | str, *, counter_start: int = COUNTER_START, tolerance_ns: int | None = None,
    max_insns: int | None = None, **arguments: Any,
) -> Report:  # fmt: skip
    """Run a guest to ``at_ns`` of guest time, move the guest to another emulated host, and run the
    guest to its end. Run the same guest again from its start to its end without a move. Compare the
    ends of both runs.

    ``arguments`` are those of `Machine`. The other parameters and the errors are those of
    `compare`.
    """

    def make(**more: Any) -> Machine:
        return Machine(image, trace_hash=False, **arguments, **more)

    at = native("max_time_ns", at_ns, "at_ns")
    if at is None:
        raise UserError("at_ns=None: write when the guest moves, for example 1_500_000 or '1.5ms'")
    return compare(
        make, at, counter_start=counter_start, tolerance_ns=tolerance_ns, max_insns=max_insns
    )


def compare(
    make: Callable[..., Machine], at_ns: int, *, counter_start: int = COUNTER_START, tolerance_ns: int | None = None,
    max_insns: int | None = None,
) -> Report:  # fmt: skip
    """Do the test of `migrate_test` with machines that the caller makes. ``make()`` returns a
    machine, and ``make(counter_start=...)`` returns the machine on the other emulated host.

    ``counter_start`` is the physical count of the other host at its virtual time 0, in ticks. The
    guest's virtual count at the end may differ between the two runs by ``tolerance_ns``; None is
    the result of `tolerance_of`. ``max_insns`` limits the instructions of each run. UserError if
    the guest ends before ``at_ns``. LimitError if the limit of host time ends one of the runs.
    """
    with make() as machine:
        ended = machine.run_until(ns=at_ns, insns=max_insns)
        _check_time(machine, ended)
        if ended is not None or machine.ns < at_ns:
            raise UserError(
                f"--at: the guest ends after {machine.ns} ns, before {at_ns} ns; choose an earlier time"
            )
        snapshot, before = save(machine), machine.insns
    with make() as machine:
        straight = finish(machine, max_insns)
        if tolerance_ns is None:
            tolerance_ns = tolerance_of(machine)
    moved = go_on(make, snapshot, counter_start, None if max_insns is None else max_insns - before)
    moved = moved._replace(result=moved.result._replace(insns=moved.result.insns + before))
    return Report(at_ns, straight.result, moved.result, differences(straight, moved, tolerance_ns))


def tolerance_of(machine: Machine) -> int:
    """The default tolerance of `compare` in ns. With one CPU, the tolerance is 0. With several
    CPUs, the tolerance is two time slices per CPU, but at least `SMP_TOLERANCE_NS`. The reason is
    that new time slices start after the move, so the end of the guest can differ."""
    cpus = len(machine.board.vcpus)
    return max(SMP_TOLERANCE_NS, 2 * cpus * machine.host.quantum_ns) if cpus > 1 else 0


def go_on(
    make: Callable[..., Machine], snapshot: Snapshot, counter_start: int = COUNTER_START,
    max_insns: int | None = None, max_time_ns: int | None = None,
) -> Ending:  # fmt: skip
    """Restore a snapshot on another emulated host, and run the guest to its end or to a limit. The
    limits are ``max_insns`` retired instructions and ``max_time_ns`` ns of virtual time.
    ``make(counter_start=...)`` returns the machine on the other host."""
    with make(counter_start=counter_start) as machine:
        restore(machine, snapshot)
        return finish(machine, max_insns, max_time_ns)


def finish(
    machine: Machine, max_insns: int | None = None, max_time_ns: int | None = None
) -> Ending:
    """Run a machine to its end or to a limit. The limits are ``max_insns`` retired instructions and
    ``max_time_ns`` ns of virtual time. Return the result, and the guest's virtual count at the end
    in ticks. LimitError if the limit of host time ends the run."""
    result = machine.run(max_insns=max_insns, max_time_ns=max_time_ns)
    _check_time(machine, result)
    return Ending(
        result, machine.board.vcpus[0].get_one_reg(VIRTUAL_COUNT), machine.board.config.cntfrq
    )


def _check_time(machine: Machine, result: Result | None) -> None:
    if result is not None and result.verdict == "limit" and machine.expired:
        raise LimitError(f"limit reached: {result.diagnosis}, at {result.ns} ns of guest time")


def differences(straight: Ending, moved: Ending, tolerance_ns: int = 0) -> list[str]:
    """Compare the ends of two runs of the same guest. Return the differences as sentences.
    ``tolerance_ns`` is the allowed difference of the virtual counts in ns."""
    found = []
    if moved.result.console != straight.result.console:
        found.append("the console differs")
    if moved.result.verdict != straight.result.verdict:
        found.append(f"the verdict is {moved.result.verdict}, not {straight.result.verdict}")
    ticks = abs(moved.ticks - straight.ticks)
    if ticks > tolerance_ns * straight.frequency // 10**9:
        found.append(f"the guest's virtual counter differs by {ticks} ticks at the end")
    return found
