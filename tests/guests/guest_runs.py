"""Runs of the bundled guests that several tests share, and the way in which `tools/campaign.py`
runs and stops them."""

from __future__ import annotations

from functools import cache

import campaign

from armvirt.bundled import Guest, guests

GUESTS = guests()
BUNDLED = [name for name in GUESTS if not name.startswith(campaign.BENCHMARKS)]
BENCHMARKS = [name for name in GUESTS if name.startswith(campaign.BENCHMARKS)]


#: Guests whose run takes a second or two of the host: they take turns by the instruction.
HEAVY = ("spinlock", "smp-lock", "sgi-smp")


def guest(name: str) -> Guest:
    return GUESTS[name]


#: "NAME[gicN-cpusM]" of a machine with several CPUs for each GIC that a guest is for, but the one
#: it has by itself.
ELSEWHERE = {
    f"{name}[{setup}]": (guest, setup)
    for name, guest in GUESTS.items()
    for setup in guest.setups
    if name in BUNDLED
    and setup.cpus == 4
    and (setup.gic, setup.cpus) != (max(guest.gics), guest.cpus)
}


def subject(name: str) -> campaign.Subject:
    """By name, or by name and machine."""
    return (
        campaign.bundled(*ELSEWHERE[name]) if name in ELSEWHERE else campaign.bundled(GUESTS[name])
    )


@cache
def reference(name: str) -> campaign.Outcome:
    """The run of a bundled guest on the engine that users get, which all others are held
    against."""
    return campaign.whole(subject(name))
