"""Rules that find out why an interrupt is not taken, or why it is taken again and again. The rules
use the checks of an interrupt and the recorded history of the run.

The checks (`armvirt.hyp.diagnosis.trace`) show what blocks an interrupt at this moment. The rules
find the mistake of the guest that leads to this state. Each rule detects one kind of mistake, and
returns None if the guest has not made this mistake. A rule changes no state.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.views.causes import elsewhere, ends, lpis, sgis, sources, storms, timers, vectors
from armvirt.views.causes.evidence import Cause, Evidence

__all__ = ["RULES", "Cause", "Evidence", "cause_of"]

#: The first rule that applies gives the answer. The order is: a vCPU that is lost in its vectors
#: (which explains all other symptoms), endless repetition, a write to a wrong place, a missing
#: write.
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
    """The cause that the first applicable rule finds. None if no rule applies. In this case the
    first check that blocks the interrupt is the full explanation."""
    return next((cause for rule in RULES if (cause := rule(evidence)) is not None), None)
