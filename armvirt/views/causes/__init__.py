"""Why does an interrupt not come, or not stop? Rules that put together the stations of an interrupt
and its past.

The stations (`armvirt.hyp.diagnosis.trace`) say what holds an interrupt at this moment. A person
asks for the mistake behind that: each rule knows one kind, and says nothing where it does not
apply. A rule changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.views.causes import elsewhere, ends, lpis, sgis, sources, storms, timers, vectors
from armvirt.views.causes.evidence import Cause, Evidence

__all__ = ["RULES", "Cause", "Evidence", "cause_of"]

#: The first that applies is the answer: a CPU that is lost explains everything else, then what
#: repeats for ever, then what is written in a wrong place, and last what is only missing.
RULES: tuple[Callable[[Evidence], Cause | None], ...] = (
    vectors.lost_in_vectors,
    storms.storm,
    storms.unacknowledged,
    vectors.not_acknowledged,
    ends.not_ended,
    ends.behind,
    elsewhere.routed_to_the_wrong,
    sgis.not_sent,
    lpis.no_property_table,
    lpis.skipped_mapping,
    lpis.unmapped_collection,
    lpis.message_lost,
    elsewhere.enabled_elsewhere,
    elsewhere.other_group,
    elsewhere.masked,
    vectors.faults_for_ever,
    vectors.polls,
    timers.never_started,
    timers.far_away,
    sources.edge_of_a_level,
    sources.line_fell,
    sources.latch_lost,
    sources.never_raised,
    sources.served,
)


def cause_of(evidence: Evidence) -> Cause | None:
    """The cause that the rules find; None: the first station that holds it says all there is."""
    return next((cause for rule in RULES if (cause := rule(evidence)) is not None), None)
