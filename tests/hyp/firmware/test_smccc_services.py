"""The firmware bitmap registers: which bits exist, and when user space may change them."""

from __future__ import annotations

import pytest

from armvirt.arch.psci import PsciFunction, SmcccFunction
from armvirt.errors import KvmError
from armvirt.hyp.firmware.smccc_services import GATES, SUPPORTED, Bitmap, ServiceMask


def test_a_new_vm_has_all_that_the_hypervisor_answers() -> None:
    mask = ServiceMask()
    assert [mask.get(bitmap) for bitmap in Bitmap] == [1, 1, 3, 0]
    assert all(
        mask.allows(function)
        for function in (*GATES, PsciFunction.VERSION, SmcccFunction.ARCH_FEATURES)
    )


@pytest.mark.parametrize("bitmap", Bitmap)
def test_bits_that_do_not_exist(bitmap: Bitmap) -> None:
    mask = ServiceMask()
    before = mask.state()
    with pytest.raises(KvmError, match="EINVAL"):
        mask.set(bitmap, SUPPORTED[bitmap] << 1, has_run=False)
    assert mask.state() == before


def test_no_change_after_the_first_run() -> None:
    mask = ServiceMask()
    mask.set(Bitmap.STD, 1, has_run=True)
    with pytest.raises(KvmError, match="EBUSY"):
        mask.set(Bitmap.STD, 0, has_run=True)
    assert mask.get(Bitmap.STD) == 1


@pytest.mark.parametrize("function", GATES)
def test_each_bit_gates_its_functions(function: int) -> None:
    bitmap, bit = GATES[function]
    mask = ServiceMask()
    mask.set(bitmap, mask.get(bitmap) & ~bit, has_run=False)
    assert [f for f in GATES if not mask.allows(f)] == [
        f for f in GATES if GATES[f] == (bitmap, bit)
    ]


def test_state_round_trip() -> None:
    mask, other = ServiceMask(), ServiceMask()
    mask.set(Bitmap.VENDOR_HYP, 1, has_run=False)
    mask.reset()
    other.load(mask.state())
    assert other.state() == mask.state() and other.get(Bitmap.VENDOR_HYP) == 1
