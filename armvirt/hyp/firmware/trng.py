"""The TRNG firmware interface (Arm DEN 0098; KVM's arch/arm64/kvm/trng.c), with a stream of random
bits that is reproducible.

A run must not depend on random numbers of the real machine. Therefore the bits are SHA-256 in
counter mode over a seed, which the user may choose. The numbers are good enough for a guest under
test, but they are not secret. Do not use keys that were made from these numbers.
"""

from __future__ import annotations

from armvirt.arch.psci import TRNG_1_0, SmcccFunction, TrngResult
from armvirt.state import State, checked

STATE_VERSION = 1

#: The UUID of KVM's TRNG: 0d21e000-4384-11eb-8070-5244554e5a4c as four little-endian words.
UUID_WORDS = (0x00E0_210D, 0xEB11_8443, 0x4452_7080, 0x4C5A_4E55)

WORDS_PER_CALL = 3  # x1 to x3

_IMPLEMENTED = frozenset(
    {
        SmcccFunction.TRNG_VERSION,
        SmcccFunction.TRNG_FEATURES,
        SmcccFunction.TRNG_GET_UUID,
        SmcccFunction.TRNG_RND32,
        SmcccFunction.TRNG_RND64,
    }
)

Words = tuple[int, int, int, int]


class Trng:
    """The entropy source of one VM. Each call returns x0 to x3. If x0 is an error code, x0 is a
    negative Python integer, which the caller converts to 64 bits."""

    def __init__(self, seed: int) -> None:
        self.seed, self.counter = seed, 0

    def version(self) -> Words:
        """TRNG_VERSION: the result is version 1.0."""
        return TRNG_1_0, 0, 0, 0

    def features(self, function: int) -> Words:
        """TRNG_FEATURES: x0 is 0 if a function is implemented, else NOT_SUPPORTED. ``function`` is
        the function id that the guest asks about."""
        return TrngResult.SUCCESS if function in _IMPLEMENTED else TrngResult.NOT_SUPPORTED, 0, 0, 0

    def uuid(self) -> Words:
        """TRNG_GET_UUID: the result is the UUID of KVM's TRNG."""
        return UUID_WORDS

    def random(self, bits: int, word_bits: int) -> Words:
        """TRNG_RND32 (``word_bits`` is 32) or TRNG_RND64 (``word_bits`` is 64). The result is a
        random number of ``bits`` bits in x1 to x3, with the lowest word in x3.

        x0 is INVALID_PARAMETERS if ``bits`` is more than three words. As in KVM, ``bits`` may be 0,
        and NO_ENTROPY is never returned.
        """
        if bits > WORDS_PER_CALL * word_bits:
            return TrngResult.INVALID_PARAMETERS, 0, 0, 0
        value = self._draw() & (1 << bits) - 1
        mask = (1 << word_bits) - 1
        return (
            TrngResult.SUCCESS,
            value >> 2 * word_bits & mask,
            value >> word_bits & mask,
            value & mask,
        )

    def _draw(self) -> int:
        """Return the next 256 bits of the random stream, as an integer."""
        import hashlib  # slow to load, and few guests use the TRNG

        block = hashlib.sha256(b"armvirt trng %d %d" % (self.seed, self.counter)).digest()
        self.counter += 1
        return int.from_bytes(block, "little")

    def reset(self) -> None:
        """Restart the random stream. A reboot of the guest does not call this method, so the guest
        gets new random numbers after the reboot."""
        self.counter = 0

    def state(self) -> dict[str, object]:
        return {"version": STATE_VERSION, "seed": self.seed, "counter": self.counter}

    def load(self, state: State) -> None:
        checked(state, "Trng", STATE_VERSION)
        seed, counter = state["seed"], state["counter"]
        assert isinstance(seed, int) and isinstance(counter, int)
        self.seed, self.counter = seed, counter
