"""The parameters of an emulated host: its physical CPUs, its engine, and the time slices of its
scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from armvirt.arch.gic import LIST_REGISTERS, PRIORITY_BITS
from armvirt.arch.timer import DEFAULT_FREQUENCY_HZ
from armvirt.records import NamedTuple

#: The physical count at virtual time 0, in ticks. With a value other than zero, CNTPCT_EL0 and
#: CNTVCT_EL0 differ in every guest, so code that confuses these counters fails. On a real board the
#: counter is not zero either, because firmware has run before the guest.
COUNTER_START = 0x1000_0000


class HostConfig(NamedTuple):
    """The parameters of an emulated host.

    ``pcpus`` is the number of physical CPUs (PEs), and ``cpu`` is their CPU model. ``engine`` is
    auto, native or portable. ``frequency_hz`` is CNTFRQ_EL0. ``counter_start`` is the physical
    count in ticks at virtual time 0. ``list_registers`` (1 to 16) and ``priority_bits`` (5 to 7)
    are the numbers that ICH_VTR_EL2 reports. ``cpu_features`` are the features that the guests'
    CPUs have in addition to the features of the CPU model; each is a name of
    `armvirt.hyp.vcpu.idregs.FEATURES`. If ``cntpoff`` is True, the PEs have FEAT_ECV_POFF. If
    ``vhe`` is True, the host kernel runs at EL2 (HCR_EL2.E2H = 1). ``quantum_ns`` is the length of
    a time slice in ns of virtual time; None means 1 ms on one PE and 100 us on several PEs. If
    ``skip`` is True, the PEs skip polled waits, which are loops that only poll a counter, a timer
    or RAM (`armvirt.hw.engine.waits`).
    """

    engine: str = "auto"
    cpu: str = "cortex-a72"
    frequency_hz: int = DEFAULT_FREQUENCY_HZ
    counter_start: int = COUNTER_START
    list_registers: int = LIST_REGISTERS
    priority_bits: int = PRIORITY_BITS
    cpu_features: Sequence[str] = ()
    cntpoff: bool = False
    vhe: bool = False
    pcpus: int = 1
    quantum_ns: int | None = None
    skip: bool = True
