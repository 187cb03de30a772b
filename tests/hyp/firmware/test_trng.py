"""The TRNG: reproducible, seeded, and as wide as asked."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch.psci import SmcccFunction, TrngResult
from armvirt.hyp.firmware.trng import Trng


def number(words: tuple[int, int, int, int], word_bits: int) -> int:
    return words[1] << 2 * word_bits | words[2] << word_bits | words[3]


@given(st.integers(0, 192), st.sampled_from([32, 64]), st.integers(0, 1 << 64))
def test_width(bits: int, word_bits: int, seed: int) -> None:
    words = Trng(seed).random(bits, word_bits)
    if bits > 3 * word_bits:
        assert words == (TrngResult.INVALID_PARAMETERS, 0, 0, 0)
    else:
        assert words[0] == 0 and all(word < 1 << word_bits for word in words)
        assert number(words, word_bits) < 1 << bits


@pytest.mark.parametrize("word_bits", [32, 64])
def test_every_bit_that_was_asked_for_is_random(word_bits: int) -> None:
    trng, seen = Trng(7), 0
    for _ in range(64):
        seen |= number(trng.random(3 * word_bits, word_bits), word_bits)
    assert seen == (1 << 3 * word_bits) - 1


def test_the_lowest_word_is_x3() -> None:
    assert Trng(1).random(8, 64)[1:3] == (0, 0)
    assert Trng(1).random(8, 64)[3] == Trng(1).random(192, 64)[3] & 0xFF


def test_same_seed_same_numbers() -> None:
    draws = [[Trng(seed).random(192, 64) for _ in range(2)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    trng = Trng(1)
    assert trng.random(64, 64) != trng.random(64, 64)


def test_the_stream_is_a_fixed_one() -> None:
    """Runs are compared between versions and machines: the numbers of a seed may not change
    unnoticed."""
    block = hashlib.sha256(b"armvirt trng 0 0").digest()
    assert Trng(0).random(64, 64)[3] == int.from_bytes(block[:8], "little")


def test_discovery() -> None:
    trng = Trng(0)
    assert trng.version() == (0x10000, 0, 0, 0)
    assert trng.features(SmcccFunction.TRNG_RND32)[0] == TrngResult.SUCCESS
    assert trng.features(SmcccFunction.VERSION)[0] == TrngResult.NOT_SUPPORTED


def test_uuid_is_kvms() -> None:
    data = b"".join(word.to_bytes(4, "little") for word in Trng(0).uuid())
    assert uuid.UUID(bytes=data) == uuid.UUID("0d21e000-4384-11eb-8070-5244554e5a4c")


def test_state_round_trip_and_reset() -> None:
    trng = Trng(5)
    first = trng.random(64, 64)
    other = Trng(9)
    other.load(trng.state())
    assert other.random(64, 64) == trng.random(64, 64)
    trng.reset()
    assert trng.random(64, 64) == first
