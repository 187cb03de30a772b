"""The system-register CPU interface of a GICv3 at EL1: ICC_* with SRE 1 and both groups accessible.

Behaves as ICV_* (IHI 0069 12.4): HPPIR and IAR of one group return 1023 when the highest pending
interrupt belongs to the other.
"""

from __future__ import annotations

from collections.abc import Callable

from . import sgi
from .cpuif import CpuInterface
from .irq import FIRST_SPECIAL, LAST_SPECIAL, SPURIOUS
from .state import GicState

SRE = 0b111  # SRE, DFB, DIB: RAO/WI
INTID_MASK = 0xFFFFFF
CBPR, EOIMODE = 1 << 0, 1 << 1

Reader = Callable[[CpuInterface, "int | None"], int]
Writer = Callable[[CpuInterface, int], None]


def special(intid: int) -> bool:
    return FIRST_SPECIAL <= intid <= LAST_SPECIAL


def _read_iar(group: int) -> Reader:
    def read(cpu: CpuInterface, prefer: int | None) -> int:
        irq = cpu.choose(prefer)
        if irq is None or irq.group != group or not cpu.signalled(irq):
            return SPURIOUS
        cpu.activate(irq, 0)
        return irq.intid

    return read


def _read_hppir(group: int) -> Reader:
    def read(cpu: CpuInterface, prefer: int | None) -> int:
        irq = cpu.choose(prefer)
        return SPURIOUS if irq is None or irq.group != group else irq.intid

    return read


def _read_bpr1(cpu: CpuInterface, prefer: int | None) -> int:
    return min(cpu.bpr0 + 1, 7) if cpu.cbpr else cpu.bpr1  # IHI 0069 ICC_CTLR_EL1.CBPR


def _read_ctlr(cpu: CpuInterface, prefer: int | None) -> int:
    # IDbits 0 (16 bits), SEIS, A3V, RSS, PMHE, ExtRange 0
    return (CBPR if cpu.cbpr else 0) | (EOIMODE if cpu.eoimode else 0) | cpu.prio_bits - 1 << 8


def _read_ap(group: int, index: int) -> Reader:
    return lambda cpu, prefer: cpu.read_ap(group, index)


def _write_ap(group: int, index: int) -> Writer:
    return lambda cpu, value: cpu.write_ap(group, index, value)


def _write_eoir(group: int) -> Writer:
    def write(cpu: CpuInterface, value: int) -> None:
        intid = value & INTID_MASK
        if not special(intid):
            cpu.end(intid, 0, 1 << group)

    return write


def _write_dir(cpu: CpuInterface, value: int) -> None:
    intid = value & INTID_MASK
    if cpu.eoimode and not special(
        intid
    ):  # IHI 0069 ICC_DIR_EL1: must be ignored when EOImode is 0
        cpu.state.deactivate_by_dir(cpu.number, intid, 0)


def _write_bpr1(cpu: CpuInterface, value: int) -> None:
    if not cpu.cbpr:
        cpu.write_bpr(1, value)


def _write_ctlr(cpu: CpuInterface, value: int) -> None:
    cpu.eoimode = bool(value & EOIMODE)
    cpu.set_cbpr(bool(value & CBPR))


def _write_grpen(group: int) -> Writer:
    def write(cpu: CpuInterface, value: int) -> None:
        cpu.grpen = cpu.grpen & ~(1 << group) | (value & 1) << group
        cpu.fresh = False
        cpu.state.reroute_one_of_n()

    return write


def _write_sgi(groups: int) -> Writer:
    return lambda cpu, value: sgi.send_v3(cpu.state, cpu.number, value, groups)


def _readers() -> dict[str, Reader]:
    readers: dict[str, Reader] = {
        "ICC_PMR_EL1": lambda cpu, prefer: cpu.pmr,
        "ICC_RPR_EL1": lambda cpu, prefer: cpu.running,
        "ICC_BPR0_EL1": lambda cpu, prefer: cpu.bpr0,
        "ICC_BPR1_EL1": _read_bpr1,
        "ICC_CTLR_EL1": _read_ctlr,
        "ICC_SRE_EL1": lambda cpu, prefer: SRE,
        "ICC_IGRPEN0_EL1": lambda cpu, prefer: cpu.grpen & 1,
        "ICC_IGRPEN1_EL1": lambda cpu, prefer: cpu.grpen >> 1,
    }
    for group in (0, 1):
        readers[f"ICC_IAR{group}_EL1"] = _read_iar(group)
        readers[f"ICC_HPPIR{group}_EL1"] = _read_hppir(group)
        for index in range(4):
            readers[f"ICC_AP{group}R{index}_EL1"] = _read_ap(group, index)
    return readers


def _writers() -> dict[str, Writer]:
    writers: dict[str, Writer] = {
        "ICC_PMR_EL1": lambda cpu, value: cpu.write_pmr(value),
        "ICC_BPR0_EL1": lambda cpu, value: cpu.write_bpr(0, value),
        "ICC_BPR1_EL1": _write_bpr1,
        "ICC_CTLR_EL1": _write_ctlr,
        "ICC_DIR_EL1": _write_dir,
        "ICC_IGRPEN0_EL1": _write_grpen(0),
        "ICC_IGRPEN1_EL1": _write_grpen(1),
    }
    for group in (0, 1):
        writers[f"ICC_EOIR{group}_EL1"] = _write_eoir(group)
        for index in range(4):
            writers[f"ICC_AP{group}R{index}_EL1"] = _write_ap(group, index)
    for register, groups in sgi.FORWARDED.items():
        writers[register] = _write_sgi(groups)
    return writers


READERS = _readers()
WRITERS = _writers()


def read(state: GicState, cpu: int, register: str, prefer: int | None) -> int:
    """Registers that are write-only or unknown read zero."""
    reader = READERS.get(register)
    return 0 if reader is None else reader(state.cpus[cpu], prefer)


def write(state: GicState, cpu: int, register: str, value: int) -> None:
    writer = WRITERS.get(register)
    if writer is not None:
        writer(state.cpus[cpu], value)
