"""The SMCCC dispatcher: conventions, discovery, events."""

from __future__ import annotations

import json

import pytest
from fake_vm import FakeVm

from armvirt.arch.bits import MASK64
from armvirt.arch.psci import PsciFunction as P
from armvirt.arch.psci import SmcccFunction as S
from armvirt.events import Event, EventBus, Hypercall, Stamp
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.firmware.smccc_services import VENDOR_PTP, Bitmap

NOT_SUPPORTED = (MASK64, 0, 0, 0)


@pytest.fixture
def smccc() -> Smccc:
    return Smccc(FakeVm(), trng_seed=1)


def test_version(smccc: Smccc) -> None:
    assert smccc.call(0, S.VERSION, ()) == (0x10001, 0, 0, 0)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (S.VERSION, 0),
        (S.ARCH_FEATURES, 0),
        (S.WORKAROUND_1, 1),
        (S.WORKAROUND_3, 1),
        (S.WORKAROUND_2, -2 & MASK64),
        (S.SOC_ID, MASK64),
        (S.PV_TIME_FEATURES, MASK64),
        (0x8000_1234, MASK64),
    ],
)
def test_arch_features(smccc: Smccc, function: int, answer: int) -> None:
    assert smccc.call(0, S.ARCH_FEATURES, (function,)) == (answer, 0, 0, 0)


@pytest.mark.parametrize(
    "function", [0, 1, 0x8000_0002, 0x8400_0005, 0x95C1_BA5E, 0xC500_0020, 0xFFFF_FFFF]
)
def test_unknown_ids(smccc: Smccc, function: int) -> None:
    assert smccc.call(0, function, (1, 2, 3)) == NOT_SUPPORTED


def test_only_w0_is_the_id(smccc: Smccc) -> None:
    assert smccc.call(0, 0xDEAD_BEEF_0000_0000 | S.VERSION, ()) == (0x10001, 0, 0, 0)


def test_a_32_bit_call_has_32_bit_arguments() -> None:
    vm = FakeVm()
    smccc = Smccc(vm, 0)
    high = 0xAAAA_AAAA << 32
    assert smccc.call(0, P.CPU_ON, (high | 1, high | 0x1000, high | 7)) == (0, 0, 0, 0)
    vm.on[1] = False
    assert smccc.call(0, P.CPU_ON_64, (1, high | 0x1000, high | 7, 99)) == (0, 0, 0, 0)
    assert smccc.call(0, P.CPU_ON_64, (high | 1, 0x1000, 7)) == (-2 & MASK64, 0, 0, 0)
    assert vm.log == [("on", 1, 0x1000, 7), ("on", 1, high | 0x1000, high | 7)]


def test_calls_that_do_not_return(smccc: Smccc) -> None:
    for function in (P.CPU_OFF, P.SYSTEM_OFF, P.SYSTEM_RESET):
        assert smccc.call(0, function, ()) is None


def test_vendor_service_is_kvms(smccc: Smccc) -> None:
    assert smccc.call(0, S.VENDOR_UID, ()) == (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
    assert smccc.call(0, S.VENDOR_FEATURES, ()) == (3, 0, 0, 0)
    assert smccc.call(0, S.VENDOR_PTP, ()) == NOT_SUPPORTED


def test_trng_is_reached(smccc: Smccc) -> None:
    assert smccc.call(0, S.TRNG_VERSION, ()) == (0x10000, 0, 0, 0)
    assert smccc.call(0, S.TRNG_FEATURES, (S.TRNG_RND64,)) == (0, 0, 0, 0)
    assert smccc.call(0, S.TRNG_RND32, (97,)) == (-2 & MASK64, 0, 0, 0)
    words = smccc.call(0, S.TRNG_RND64, (192,))
    assert words is not None and words[0] == 0 and all(words[1:])


def test_other_services_can_be_added(smccc: Smccc) -> None:
    smccc.add(S.PV_TIME_FEATURES, lambda vcpu, args: (vcpu, args[0], 0, 0))
    assert smccc.call(3, S.PV_TIME_FEATURES, (8,)) == (3, 8, 0, 0)
    assert smccc.call(0, S.ARCH_FEATURES, (S.PV_TIME_FEATURES,)) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="has a handler already"):
        smccc.add(S.PV_TIME_FEATURES, lambda vcpu, args: None)


def test_services_that_the_vmm_takes_away(smccc: Smccc) -> None:
    smccc.services.set(Bitmap.STD, 0, has_run=False)
    smccc.services.set(Bitmap.VENDOR_HYP, VENDOR_PTP, has_run=False)
    for function in (S.TRNG_VERSION, S.TRNG_RND64, S.VENDOR_UID, S.VENDOR_FEATURES):
        assert smccc.call(0, function, (8,)) == NOT_SUPPORTED
    assert smccc.call(0, P.VERSION, ()) == (0x10003, 0, 0, 0), "no bit stands for PSCI"


def test_stolen_time_is_discovered_only_if_the_vmm_leaves_it(smccc: Smccc) -> None:
    smccc.add(S.PV_TIME_FEATURES, lambda vcpu, args: (0, 0, 0, 0))
    smccc.add(S.PV_TIME_ST, lambda vcpu, args: (0, 0, 0, 0))
    assert smccc.arch_features(S.PV_TIME_FEATURES) == 0
    assert smccc.arch_features(S.PV_TIME_ST) == -1, "ARCH_FEATURES knows the discovery call alone"
    smccc.services.set(Bitmap.STD_HYP, 0, has_run=False)
    assert smccc.arch_features(S.PV_TIME_FEATURES) == -1
    assert smccc.call(0, S.PV_TIME_ST, ()) == NOT_SUPPORTED


def test_every_call_is_an_event() -> None:
    events: list[Event] = []
    bus = EventBus()

    def sink(_stamp: Stamp, event: Event) -> None:
        events.append(event)

    bus.subscribe(sink)
    smccc = Smccc(FakeVm(), 0, bus)
    smccc.call(0, P.VERSION, ())
    smccc.call(0, P.MIGRATE, (5,))
    smccc.call(0, P.SYSTEM_OFF, ())
    assert events == [
        Hypercall(P.VERSION, (0, 0, 0), 0x10003),
        Hypercall(P.MIGRATE, (5, 0, 0), MASK64),
        Hypercall(P.SYSTEM_OFF, (0, 0, 0), 0),
    ]


def test_state_round_trip_continues_the_random_stream(smccc: Smccc) -> None:
    smccc.call(0, S.TRNG_RND64, (64,))
    smccc.reset()
    saved = json.loads(json.dumps(smccc.state()))
    other = Smccc(FakeVm(), trng_seed=2)
    other.load(saved)
    assert other.state() == saved and saved["version"] == 2
    assert other.call(0, S.TRNG_RND64, (64,)) == smccc.call(0, S.TRNG_RND64, (64,))
