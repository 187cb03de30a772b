"""SMCCC 1.1 calls by HVC (Arm DEN 0028; KVM's arch/arm64/kvm/hypercalls.c). The class `Smccc` has a
table of the handlers by function id."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from armvirt.arch import psci as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.psci import SmcccFunction, SmcccResult
from armvirt.events import EventBus, Hypercall
from armvirt.hyp.firmware.psci import CALLS as PSCI_CALLS
from armvirt.hyp.firmware.psci import Args, Psci, SmcccHost
from armvirt.hyp.firmware.smccc_services import Bitmap, FilterAction, ServiceMask, SmcccFilter
from armvirt.hyp.firmware.trng import Trng
from armvirt.state import State, Stateful, checked, load_states, states_of

STATE_VERSION = 2

__all__ = ["Result", "Smccc", "SmcccHost"]

#: x0 to x3 after the call; None if the call does not return to the caller. A handler may return a negative x0.
Result = tuple[int, int, int, int] | None
Handler = Callable[[int, Args], Result]

MIN_ARGS = 3  # every handler gets x1 to x3
WORKAROUND_UNAFFECTED = 1  # ARCH_FEATURES of WORKAROUND_1 and _3: this CPU does not need the call

#: The UID of KVM's vendor-specific hypervisor service, x0 to x3.
VENDOR_UID_WORDS = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)

#: The results of ARCH_FEATURES. An emulator does not speculate, so the guest does not need the workarounds.
_ARCH_FEATURES: dict[int, int] = {
    SmcccFunction.VERSION: SmcccResult.SUCCESS,
    SmcccFunction.ARCH_FEATURES: SmcccResult.SUCCESS,
    SmcccFunction.WORKAROUND_1: WORKAROUND_UNAFFECTED,
    SmcccFunction.WORKAROUND_2: SmcccResult.NOT_REQUIRED,
    SmcccFunction.WORKAROUND_3: WORKAROUND_UNAFFECTED,
}


def _x0(value: int) -> tuple[int, int, int, int]:
    return value, 0, 0, 0


NOT_SUPPORTED = _x0(SmcccResult.NOT_SUPPORTED)

#: The value of a W register, for the arguments of a 32-bit function.
_low_word: Callable[[int], int] = 0xFFFF_FFFF.__and__


class Smccc:
    """The SMCCC calls of one VM.

    ``trng_seed`` is the seed of the random numbers that the guest gets. Other modules of the
    hypervisor (stolen time, PTP) add their functions with `add`. ``services`` has the services that
    the VMM has enabled. A call of a disabled service returns NOT_SUPPORTED.
    """

    def __init__(self, vm: SmcccHost, trng_seed: int, bus: EventBus | None = None) -> None:
        self.psci, self.trng, self.services = Psci(vm), Trng(trng_seed), ServiceMask()
        self.bus = bus if bus is not None else EventBus()
        self.filter = SmcccFilter()
        self._handlers: dict[int, Handler] = {}
        for function in PSCI_CALLS:
            self.add(function, self._psci(function))
        for function, handler in self._services().items():
            self.add(function, handler)

    def _psci(self, function: int) -> Handler:
        def handler(vcpu_id: int, args: Args) -> Result:
            result = self.psci.call(vcpu_id, function, args)
            return None if result is None else _x0(result)

        return handler

    def _services(self) -> dict[int, Handler]:
        trng = self.trng
        return {
            SmcccFunction.VERSION: lambda vcpu, args: _x0(arch.SMCCC_1_1),
            SmcccFunction.ARCH_FEATURES: lambda vcpu, args: _x0(self.arch_features(args[0])),
            # The workarounds succeed without effect: an unaffected CPU must allow the call.
            SmcccFunction.WORKAROUND_1: lambda vcpu, args: _x0(SmcccResult.SUCCESS),
            SmcccFunction.WORKAROUND_3: lambda vcpu, args: _x0(SmcccResult.SUCCESS),
            SmcccFunction.TRNG_VERSION: lambda vcpu, args: trng.version(),
            SmcccFunction.TRNG_FEATURES: lambda vcpu, args: trng.features(args[0]),
            SmcccFunction.TRNG_GET_UUID: lambda vcpu, args: trng.uuid(),
            SmcccFunction.TRNG_RND32: lambda vcpu, args: trng.random(args[0], 32),
            SmcccFunction.TRNG_RND64: lambda vcpu, args: trng.random(args[0], 64),
            SmcccFunction.VENDOR_UID: lambda vcpu, args: VENDOR_UID_WORDS,
            SmcccFunction.VENDOR_FEATURES: lambda vcpu, args: self.vendor_features(),
        }

    def add(self, function: int, handler: Handler) -> None:
        """Register a handler for an SMCCC function. ``function`` is the function id. A call of the
        function calls ``handler(vcpu_id, args)``. ValueError if the function already has a
        handler."""
        if function in self._handlers:
            raise ValueError(f"SMCCC function {function:#x} has a handler already")
        self._handlers[function] = handler

    def arch_features(self, function: int) -> int:
        """The result of SMCCC_ARCH_FEATURES. ``function`` is the function id that the guest asks
        about. With this call the guest also discovers whether PV_TIME_FEATURES exists (DEN 0057,
        3.1)."""
        known = _ARCH_FEATURES.get(function)
        if known is not None:
            return known
        pv_time = (
            function == SmcccFunction.PV_TIME_FEATURES
            and function in self._handlers
            and self.services.allows(function)
        )
        return SmcccResult.SUCCESS if pv_time else SmcccResult.NOT_SUPPORTED

    def vendor_features(self) -> Result:
        """The results x0 to x3 of the call that lists the vendor services that the VMM has enabled.
        x0 has the bits of the first 32 services (VENDOR_HYP), x2 has the bits of the next 32
        services (VENDOR_HYP_2)."""
        first, second = Bitmap.VENDOR_HYP, Bitmap.VENDOR_HYP_2
        return self.services.get(first), 0, self.services.get(second), 0

    def forwards(self, function_id: int) -> bool:
        """Whether the VMM's filter forwards a call to the VMM. ``function_id`` is w0 of the
        call."""
        filter = self.filter
        if not filter.ranges:
            return False
        return filter.action(function_id & 0xFFFF_FFFF) is FilterAction.FWD_TO_USER

    def _permits(self, function: int) -> bool:
        """Whether the hypervisor may handle a call of ``function``: the filter does not deny the
        call, and the function belongs to no disabled service."""
        if self.filter.ranges and self.filter.action(function) is FilterAction.DENY:
            return False
        return self.services.allows(function)

    def call(self, vcpu_id: int, function_id: int, args: Args) -> Result:
        """Handle one HVC. ``function_id`` is w0, ``args`` has x1, x2 and so on. Missing arguments
        are 0. The result is NOT_SUPPORTED if the function id is unknown, if the VMM's filter denies
        the function id, or if the function belongs to a disabled service.

        Return x0 to x3. Return None after CPU_OFF and system events; in this case the exit handler
        writes no result to the caller's registers.
        """
        function = function_id & 0xFFFF_FFFF
        cut = tuple(args if arch.is_64bit(function) else map(_low_word, args))
        if len(cut) < MIN_ARGS:
            cut += (0,) * (MIN_ARGS - len(cut))
        handler = self._handlers.get(function)
        if handler is None or not self._permits(function):
            words: Result = NOT_SUPPORTED
        else:
            words = handler(vcpu_id, cut)
        result = None if words is None else (words[0] & MASK64, words[1], words[2], words[3])
        if self.bus.active:
            self.bus.emit(Hypercall(function, cut[:MIN_ARGS], 0 if result is None else result[0]))
        return result

    def reset(self) -> None:
        """Reset for a reboot of the VM. The PSCI version and the enabled services do not change.
        The stream of random numbers is not restarted."""
        self.psci.reset()

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The objects whose state is saved with the VM, by name. The filter is not saved, because
        the VMM sets the filter before the VM runs."""
        return {"psci": self.psci, "trng": self.trng, "services": self.services}

    def state(self) -> State:
        return {"version": STATE_VERSION, "parts": states_of(self.parts)}

    def load(self, state: State) -> None:
        load_states(self.parts, checked(state, "Smccc", STATE_VERSION)["parts"], "Smccc")
