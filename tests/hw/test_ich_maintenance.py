"""ICH_MISR_EL2, ICH_EISR_EL2, ICH_ELRSR_EL2 and ICH_VTR_EL2 for every state of a list register (IHI
0069 12.4)."""

from __future__ import annotations

from itertools import product

import pytest
from ich_guest import Guest

from armvirt.arch import gic as arch
from armvirt.arch.gic import ICH_HCR_EN, LR_EOI, LR_GROUP1, LR_HW, LR_STATE_SHIFT

STATES = (0, 1, 2, 3)


@pytest.mark.parametrize(("state", "hw", "eoi"), list(product(STATES, (0, 1), (0, 1))))
def test_one_list_register(state: int, hw: int, eoi: int) -> None:
    """EISR: state 0, HW 0, EOI 1. ELRSR: state 0, and HW 1 or EOI 0. Bit 41 with HW = 1 is
    pINTID's."""
    guest = Guest()
    guest.ich("LR2", state << LR_STATE_SHIFT | LR_HW * hw | LR_EOI * eoi | LR_GROUP1 | 40)
    waits = state == 0 and not hw and bool(eoi)
    free = state == 0 and not waits
    assert guest.ich("EISR") == 4 * waits
    assert guest.ich("ELRSR") == 0b1011 | 4 * free
    assert guest.ich("MISR") == arch.MISR_EOI * waits
    assert guest.vif.maintenance == waits


@pytest.mark.parametrize("states", list(product(STATES, STATES)))
def test_underflow_and_no_pending(states: tuple[int, int]) -> None:
    """U: at most one list register in use. NP: none is pending; pending and active does not count
    as pending."""
    guest = Guest()
    guest.ich("HCR", ICH_HCR_EN | arch.ICH_HCR_UIE | arch.ICH_HCR_NPIE)
    for n, state in enumerate(states):
        guest.ich(f"LR{n}", state << LR_STATE_SHIFT | LR_GROUP1 | 40 + n)
    expected = 0 if all(states) else arch.MISR_U
    expected |= 0 if 1 in states else arch.MISR_NP
    assert guest.ich("MISR") == expected
    guest.ich("HCR", ICH_HCR_EN)
    assert guest.ich("MISR") == 0


def test_a_single_list_register_is_always_nearly_empty() -> None:
    guest = Guest(list_registers=1)
    guest.ich("HCR", ICH_HCR_EN | arch.ICH_HCR_UIE)
    guest.pend(0, 40)
    assert guest.ich("MISR") == arch.MISR_U


@pytest.mark.parametrize("enables", range(4))
def test_group_enables(enables: int) -> None:
    """All four watchers at once: each sees its own group (an early QEMU looked at group 1 for
    VGrp0D)."""
    guest = Guest()
    guest.write("IGRPEN0", enables & 1)
    guest.write("IGRPEN1", enables >> 1)
    guest.ich("HCR", ICH_HCR_EN | 0xF0)
    expected = arch.MISR_VGRP0E if enables & 1 else arch.MISR_VGRP0D
    expected |= arch.MISR_VGRP1E if enables & 2 else arch.MISR_VGRP1D
    assert guest.ich("MISR") == expected and guest.vif.maintenance


def test_the_count_alone_asks_for_nothing() -> None:
    """LRENP needs LRENPIE and a count (an early QEMU took either)."""
    guest = Guest()
    guest.ich("HCR", ICH_HCR_EN | 3 << arch.ICH_HCR_EOICOUNT_SHIFT)
    assert guest.ich("MISR") == 0
    guest.ich("HCR", ICH_HCR_EN | arch.ICH_HCR_LRENPIE)
    assert guest.ich("MISR") == 0
    guest.ich("HCR", ICH_HCR_EN | arch.ICH_HCR_LRENPIE | 3 << arch.ICH_HCR_EOICOUNT_SHIFT)
    assert guest.ich("MISR") == arch.MISR_LRENP


@pytest.mark.parametrize("list_registers", [1, 4, 16])
@pytest.mark.parametrize("bits", [5, 6, 7])
def test_vtr(list_registers: int, bits: int) -> None:
    """List registers - 1, TDS (TDIR works), nV4 (no direct injection), A3V, 16-bit INTIDs, PREbits
    and PRIbits - 1."""
    vtr = Guest(list_registers, bits).ich("VTR")
    assert vtr == list_registers - 1 | 7 << 19 | bits - 1 << 26 | bits - 1 << 29


def test_hcr_bits_that_exist() -> None:
    """No SEI (TSEI), no direct injection (DVIM, vSGIEOICount): RES0."""
    guest = Guest()
    assert guest.ich("HCR", 0xFFFF_FFFF) == 0xF800_5CFF


@pytest.mark.parametrize("bits", [5, 6, 7])
def test_vmcr_bits_that_exist(bits: int) -> None:
    """With SRE = 1 VFIQEn is 1 and VAckCtl 0; binary points and the mask are as the priority bits
    allow."""
    guest = Guest(prebits=bits)
    assert guest.ich("VMCR", 0) == arch.VMCR_VFIQEN | 8 - bits << 18 | 7 - bits << 21
    pmr = 0xFF << 8 - bits & 0xFF
    assert guest.ich("VMCR", 0xFFFF_FFFF) == pmr << 24 | 7 << 21 | 7 << 18 | 0x21B
