"""PSCI as KVM answers it, function by function."""

from __future__ import annotations

import pytest
from fake_vm import FakeVm

from armvirt.arch import psci as arch
from armvirt.arch.psci import PsciFunction as F
from armvirt.arch.psci import PsciResult as R
from armvirt.arch.psci import SmcccFunction
from armvirt.errors import KvmError
from armvirt.hyp.firmware.psci import CALLS, VERSIONS, Psci

NEVER = (
    F.MIGRATE,
    F.MIGRATE_64,
    F.MIGRATE_INFO_UP_CPU,
    F.CPU_FREEZE,
    F.CPU_DEFAULT_SUSPEND,
    F.NODE_HW_STATE,
    F.SYSTEM_SUSPEND,
    F.SYSTEM_SUSPEND_64,
    F.SET_SUSPEND_MODE,
    F.STAT_RESIDENCY,
    F.STAT_COUNT,
    F.MEM_PROTECT,
    F.MEM_PROTECT_CHECK_RANGE,
)


def call(
    vm: FakeVm, function: int, *args: int, version: int = arch.PSCI_1_1, vcpu: int = 0
) -> int | None:
    return Psci(vm, version).call(vcpu, function, args + (0,) * (3 - len(args)))


def test_version() -> None:
    assert [call(FakeVm(), F.VERSION, version=v) for v in VERSIONS] == [
        2,
        0x10000,
        0x10001,
        0x10002,
        0x10003,
    ]
    assert Psci(FakeVm()).version == arch.PSCI_1_3
    assert call(FakeVm(), F.VERSION, version=arch.PSCI_0_2) == 2


@pytest.mark.parametrize("version", [0, 1, 0x10004])
def test_versions_that_do_not_exist(version: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        Psci(FakeVm(), version)


@pytest.mark.parametrize("function", [F.CPU_ON, F.CPU_ON_64])
def test_cpu_on(function: int) -> None:
    vm = FakeVm()
    assert call(vm, function, 1, 0x4020_0000, 0xCAFE) == R.SUCCESS
    assert vm.log == [("on", 1, 0x4020_0000, 0xCAFE)]
    assert call(vm, function, 1, 0, 0) == R.ALREADY_ON
    assert len(vm.log) == 1


@pytest.mark.parametrize("affinity", [2, 1 << 24, 1 << 31, 0x100, 1 << 63])
def test_cpu_on_of_nobody(affinity: int) -> None:
    vm = FakeVm()
    assert call(vm, F.CPU_ON_64, affinity, 0, 0) == R.INVALID_PARAMETERS
    assert not vm.log


def test_cpu_on_of_oneself() -> None:
    assert call(FakeVm(), F.CPU_ON_64, 0) == R.ALREADY_ON


def test_cpu_off_does_not_return_and_on_again_works() -> None:
    vm = FakeVm()
    call(vm, F.CPU_ON_64, 1, 0x1000, 1)
    assert call(vm, F.CPU_OFF, vcpu=1) is None
    assert call(vm, F.AFFINITY_INFO_64, 1, 0) == arch.AffinityState.OFF
    assert call(vm, F.CPU_ON_64, 1, 0x2000, 2) == R.SUCCESS


def test_cpu_suspend_is_a_wait() -> None:
    vm = FakeVm()
    assert call(vm, F.CPU_SUSPEND_64, 0x1_0000, 0x1000, 5) == R.SUCCESS
    assert vm.log == [("suspend", 0)]


@pytest.mark.parametrize(
    ("affinity", "level", "result"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (16, 0, R.INVALID_PARAMETERS),
        (1, 1, 0),
        (0xFF, 1, 0),
        (0x100, 1, 1),
        (0x100, 2, 0),
        (0x200, 1, R.INVALID_PARAMETERS),
        (0, 3, 0),
        (0, 4, R.INVALID_PARAMETERS),
        (1 << 31, 0, R.INVALID_PARAMETERS),
        (1 << 32, 3, R.INVALID_PARAMETERS),
    ],
)
def test_affinity_info_of_seventeen_vcpus_with_one_on(
    affinity: int, level: int, result: int
) -> None:
    assert call(FakeVm(17), F.AFFINITY_INFO_64, affinity, level) == result


def test_migrate_info_type_needs_no_migration() -> None:
    assert call(FakeVm(), F.MIGRATE_INFO_TYPE) == 2


@pytest.mark.parametrize(
    ("function", "event"), [(F.SYSTEM_OFF, "shutdown"), (F.SYSTEM_RESET, "reset")]
)
def test_system_events_do_not_return(function: int, event: str) -> None:
    vm = FakeVm()
    assert call(vm, function) is None
    assert vm.log == [(event, 0)]


@pytest.mark.parametrize("function", [F.SYSTEM_RESET2, F.SYSTEM_RESET2_64])
def test_system_reset2(function: int) -> None:
    for reset_type in (0, 1 << 31, 0x8000_0005):
        vm = FakeVm()
        assert call(vm, function, reset_type, 99) is None
        assert vm.log == [("reset", 1)]
    vm = FakeVm()
    assert call(vm, function, 1) == R.INVALID_PARAMETERS
    assert not vm.log


@pytest.mark.parametrize("function", [*NEVER, 0x8400_0100, 0x8400_0015])
def test_what_is_not_there(function: int) -> None:
    vm = FakeVm()
    assert call(vm, function, 1, 2, 3) == R.NOT_SUPPORTED
    assert call(vm, F.FEATURES, function) == R.NOT_SUPPORTED
    assert not vm.log


SUSPEND, OFF2 = (F.SYSTEM_SUSPEND, F.SYSTEM_SUSPEND_64), (F.SYSTEM_OFF2, F.SYSTEM_OFF2_64)


@pytest.mark.parametrize("function", [*CALLS, SmcccFunction.VERSION])
def test_features_of_what_is_there(function: int) -> None:
    """Only SYSTEM_OFF2 has feature flags: the types of hibernation."""
    psci = Psci(FakeVm(), arch.PSCI_1_3)
    psci.suspend_enabled = True
    assert psci.call(0, F.FEATURES, (function, 0, 0)) == (1 if function in OFF2 else R.SUCCESS)


@pytest.mark.parametrize("function", SUSPEND)
def test_system_suspend_only_where_the_vmm_allows_it(function: int) -> None:
    vm = FakeVm()
    psci = Psci(vm)
    assert psci.call(0, function, (0x1000, 7, 0)) == R.NOT_SUPPORTED
    psci.suspend_enabled = True
    assert psci.call(0, function, (0x1000, 7, 0)) is None
    assert vm.log == [("system_suspend", 0, 0x1000, 7)]
    psci.set_version(arch.PSCI_0_2)
    assert psci.call(0, function, (0x1000, 7, 0)) == R.NOT_SUPPORTED


@pytest.mark.parametrize("function", OFF2)
def test_system_off2(function: int) -> None:
    for kind in (0, 1):
        vm = FakeVm()
        assert call(vm, function, kind, 0, version=arch.PSCI_1_3) is None and vm.log == [
            ("shutdown", 1)
        ]
    vm = FakeVm()
    assert call(vm, function, 1, 5, version=arch.PSCI_1_3) == R.INVALID_PARAMETERS
    assert call(vm, function, 2, 0, version=arch.PSCI_1_3) == R.INVALID_PARAMETERS
    assert call(vm, function, 1, 0, version=arch.PSCI_1_2) == R.NOT_SUPPORTED
    assert not vm.log


def test_older_versions_lack_the_younger_functions() -> None:
    vm = FakeVm()
    assert call(vm, F.FEATURES, F.VERSION, version=arch.PSCI_0_2) == R.NOT_SUPPORTED
    assert call(vm, F.SYSTEM_RESET2, version=arch.PSCI_1_0) == R.NOT_SUPPORTED
    assert call(vm, F.FEATURES, F.SYSTEM_RESET2, version=arch.PSCI_1_0) == R.NOT_SUPPORTED
    assert call(vm, F.FEATURES, F.CPU_ON, version=arch.PSCI_1_0) == R.SUCCESS
    assert not vm.log


def test_state_round_trip() -> None:
    psci = Psci(FakeVm(), arch.PSCI_1_0)
    psci.suspend_enabled = True
    other = Psci(FakeVm())
    other.load(psci.state())
    assert (
        other.version == arch.PSCI_1_0 and other.suspend_enabled and other.state() == psci.state()
    )
