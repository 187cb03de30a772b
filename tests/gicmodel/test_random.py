"""The incremental candidate sets of the model against a plain recomputation, over random
actions."""

from __future__ import annotations

import random

import pytest

from . import GicModel
from .support import GRPEN, eoi, iar, v2, v3

# ---- the incremental sets against a plain recomputation


@pytest.mark.parametrize("version", [2, 3])
def test_candidates_agree_with_a_full_scan(version: int) -> None:
    rng = random.Random(version)
    gic = v3(4) if version == 3 else v2(4)
    state = gic._state
    for _ in range(4000):
        random_step(gic, rng, version)
        for cpu in state.cpus:
            expected = {
                irq
                for irq in (*state.banks[cpu.number][:32], *state.spis)
                if irq.enabled
                and not irq.active
                and irq.pending()
                and state.target(irq) == cpu.number
            }
            assert cpu.candidates == expected
            enabled = [i for i in expected if state.grpen & cpu.grpen & 1 << i.group]
            assert gic.hppi(cpu.number) == (
                min(enabled, key=lambda i: (i.prio, i.intid)).intid if enabled else 1023
            )


def random_step(gic: GicModel, rng: random.Random, version: int) -> None:
    cpu, intid = rng.randrange(4), rng.randrange(96)
    action = rng.randrange(10)
    if action < 2:
        gic.set_line(intid, rng.random() < 0.5, cpu)
    elif action == 2:
        gic.pulse(intid, cpu)
    elif action < 6:
        offset = (
            rng.choice((0x80, 0x100, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380)) + intid // 32 * 4
        )
        value = 1 << intid % 32
        if version == 3 and intid < 32:
            gic.redist_write(cpu, rng.randrange(4), 0x10000 + offset, 4, value)
        else:
            gic.dist_write(cpu, offset, 4, value)
    elif action == 6:
        gic.dist_write(cpu, 0x400 + intid, 1, rng.randrange(256))
        gic.dist_write(cpu, 0x6000 + 8 * intid, 8, rng.choice((0, 1, 2, 3, 1 << 31)))
        gic.dist_write(cpu, 0x800 + intid, 1, rng.randrange(16))
    elif action == 7:
        gic.icc_write(cpu, "ICC_SGI1R_EL1", rng.randrange(16) << 24 | rng.randrange(16))
        gic.dist_write(cpu, 0xF00, 4, rng.randrange(16) << 16 | rng.randrange(16))
        gic.icc_write(cpu, GRPEN[rng.randrange(2)], int(rng.random() < 0.8))
        gic.redist_write(cpu, cpu, 0, 4, rng.randrange(4) << 24 if rng.random() < 0.2 else 0)
    else:
        group = rng.randrange(2)
        if version == 3:
            eoi(gic, iar(gic, cpu, group), cpu, group)
        else:
            value = gic.gicc_read(cpu, (0x0C, 0x20)[group], 4)
            gic.gicc_write(cpu, (0x10, 0x24)[group], 4, value)
