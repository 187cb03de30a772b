"""A long campaign of random accesses to the vGIC: no exception may be raised, and no law may be
broken.

    python tools/gic_campaign.py                       a million accesses
    python tools/gic_campaign.py --millions 100        more; a line with the rate for each million
    python tools/gic_campaign.py --seed 7 --millions 2

Each 10,000 accesses are made on a new machine. `tools/gic_fuzz.py` or `tools/gic_fuzz_its.py`
derives its configuration and its accesses from its number, the seed. The first failure is printed
with the seed and ends the campaign with status 1; ``--seed`` with this number repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from gic_fuzz import Fuzzer, LawError
from gic_fuzz_its import ItsFuzzer

MILLION = 1_000_000
PER_MACHINE = 10_000


def machine(seed: int) -> Fuzzer:
    """The machine of a seed: one machine in three has an ITS, the others are a GICv2 or a GICv3."""
    return ItsFuzzer(seed) if seed % 3 == 0 else Fuzzer(seed)


def run(seed: int, accesses: int) -> None:
    """Run one machine after another, with the seeds from ``seed`` on."""
    done = 0
    while done < accesses:
        done += machine(seed).run(min(PER_MACHINE, accesses - done))
        seed += 1


def campaign(seed: int, accesses: int, report: int = MILLION) -> int:
    """Run and print; returns the exit status."""
    started, done = time.monotonic(), 0
    while done < accesses:
        count = min(report, accesses - done)
        try:
            run(seed, count)
        except LawError as error:
            print(error, flush=True)
            return 1
        seed += -(-count // PER_MACHINE)
        done += count
        rate = done / max(1e-9, time.monotonic() - started)
        print(f"{done:>12,} accesses, no law broken, {rate:,.0f} a second", flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--millions", type=float, default=1, help="millions of accesses (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first machine (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return campaign(options.seed, int(options.millions * MILLION))


if __name__ == "__main__":
    sys.exit(main())
