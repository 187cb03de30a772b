"""Software-generated interrupts: GICD_SGIR of a GICv2, ICC_SGI0R/SGI1R/ASGI1R of a GICv3."""

from __future__ import annotations

from .state import GicState

# The configured groups of the target's SGI for which a write is forwarded, as a mask by group.
#
# IHI 0069 8.1.10 (12.1.10 in later issues) "Use of control registers for SGI forwarding", table
# "Forwarding an SGI to a target PE". With GICD_CTLR.DS 1 a write is treated as the Non-secure row
# of the table with GICR_NSACR permitting: SGI0R makes Group 0 SGIs only, SGI1R Group 1 and also
# Group 0 ("under certain conditions a write to ICC_SGI1R_EL1 can generate Group 0 interrupts",
# ICC_SGI1R_EL1), and ASGI1R, the other Security state being none, only Group 0 (note below that
# table).
FORWARDED = {"ICC_SGI0R_EL1": 0b01, "ICC_SGI1R_EL1": 0b11, "ICC_ASGI1R_EL1": 0b01}


def send_v3(state: GicState, sender: int, value: int, groups: int) -> None:
    """A write of ICC_SGI*R_EL1 (IHI 0069 ICC_SGI1R_EL1)."""
    intid = value >> 24 & 15
    if value >> 40 & 1:  # IRM: all PEs but the sender
        targets = state.all_cpus & ~(1 << sender)
    else:
        targets = _targets(state, value)
    while targets:
        lowest = targets & -targets
        targets ^= lowest
        irq = state.banks[lowest.bit_length() - 1][intid]
        if groups >> irq.group & 1:
            state.send_sgi(irq, sender)


def _targets(state: GicState, value: int) -> int:
    """CPU mask of the target list: Aff0 = RS * 16 + bit, sixteen CPUs (Aff0 0-15) a cluster."""
    aff3, aff2, aff1 = value >> 48 & 0xFF, value >> 32 & 0xFF, value >> 16 & 0xFF
    if aff3:
        state.note("Aff3 of an SGI is not zero where ICC_CTLR_EL1.A3V is 0 (RES0)")
        return 0
    if aff2 or value >> 44 & 15:
        return 0
    return (value & 0xFFFF) << 16 * aff1 & state.all_cpus


def send_v2(state: GicState, sender: int, value: int) -> None:
    """GICD_SGIR. NSATT [15] exists only with the Security Extensions (IHI 0048 4.3.15): ignored."""
    listed = value >> 16 & 0xFF
    targets = (listed, ~(1 << sender), 1 << sender, 0)[value >> 24 & 3] & state.all_cpus
    for number in range(len(state.cpus)):
        if targets >> number & 1:
            state.send_sgi(state.banks[number][value & 15], sender)
