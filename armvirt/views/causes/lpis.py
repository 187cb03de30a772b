"""Rules for mistakes with LPIs that the checks alone do not show: a translation, a table or a
collection is missing."""

from __future__ import annotations

from armvirt.arch.gic import FIRST_LPI
from armvirt.arch.its import (
    E_MAPTI_ID_OOR,
    E_MAPTI_PHYSICALID_OOR,
    E_MAPTI_UNMAPPED_DEVICE,
    PROPBASER_IDBITS,
    lpis_end,
)
from armvirt.hyp.diagnosis import lpi_checks
from armvirt.hyp.diagnosis import register_names as naming
from armvirt.hyp.diagnosis.finding import Check
from armvirt.trace.sources import its_error
from armvirt.views.causes.evidence import Cause, Evidence
from armvirt.views.causes.written import place

#: What the errors of MAPTI and MAPI mean.
MEANINGS = {
    E_MAPTI_UNMAPPED_DEVICE: "no MAPD has mapped its device",
    E_MAPTI_ID_OOR: "a number is out of range",
    E_MAPTI_PHYSICALID_OOR: "a number is out of range",
}


def no_property_table(evidence: Evidence) -> Cause | None:
    """Detect an LPI that has no entry in the configuration table. The reason is that GICR_PROPBASER
    has no table, or too few IDbits (IHI 0069 12.11)."""
    held, propbaser = evidence.holds(Check.EVENT, Check.ENABLE), evidence.dist.propbaser
    if evidence.intid < FIRST_LPI or held is None or evidence.intid < lpis_end(propbaser):
        return None
    register = naming.redistributor(evidence.dist.cpu(evidence.vcpu), "GICR_PROPBASER", "")
    text = (
        f"is not taken by vCPU {evidence.vcpu}: GICR_PROPBASER.IDbits is "
        f"{propbaser & PROPBASER_IDBITS}, for LPIs below "
        f"{max(lpis_end(propbaser), FIRST_LPI)} only ({evidence.wrote(register._replace(size=8))}): {held.text}"
    )
    return Cause(
        "propbaser",
        text,
        f"write the table's address and enough IDbits to {register} before EnableLPIs",
    )


def skipped_mapping(evidence: Evidence) -> Cause | None:
    """Detect an LPI that is not mapped because the ITS skipped the command MAPTI or MAPI. The ITS
    skips a command that has an error."""
    held = evidence.holds(Check.EVENT)
    write = evidence.recorder.commanded(evidence.intid, ("MAPTI", "MAPI"))
    if held is None or evidence.intid < FIRST_LPI or write is None or not write.value:
        return None
    means = MEANINGS.get(write.value, "")
    where = f"{write.ns:,} ns by {place(write.pc, evidence.names)}"
    text = (
        f"is not taken by vCPU {evidence.vcpu}: {write.what} at {where} was skipped, "
        f"{its_error(write.value)}{': ' + means if means else ''}; no ITS translates an event to it"
    )
    return Cause("mapping-skipped", text, "queue MAPD for the device first, then " + write.what)


def message_lost(evidence: Evidence) -> Cause | None:
    """Detect an LPI that was never raised, although a message was sent. The message was for another
    device or event."""
    lost, found = (
        evidence.history.lost_message,
        lpi_checks.source_of(evidence.its, evidence.intid),
    )
    if lost is None or found is None or evidence.past.raised.count:
        return None
    if not evidence.holds(Check.PENDING):
        return None
    how = "a store to GITS_TRANSLATER" if lost.error < 0 else "INT"
    error = "" if lost.error < 0 else f", {its_error(lost.error)}"
    text = (
        f"was never raised: it is translated from {found}, and {how} at {evidence.when(lost.stamp)} was for "
        f"device {lost.device}, event {lost.event}, which raised nothing{error}"
    )
    return Cause("message-lost", text, f"send the message of {found}")


def unmapped_collection(evidence: Evidence) -> Cause | None:
    """Detect an LPI whose collection is mapped to no CPU. Messages for such an LPI are lost (IHI
    0069 5.3)."""
    held, route = evidence.holds(Check.PENDING), evidence.at(Check.ROUTE)
    if evidence.intid < FIRST_LPI or held is None or route is None or route.passed:
        return None
    found = lpi_checks.source_of(evidence.its, evidence.intid)
    if found is None or found.event.collection.target is not None:
        return None
    icid = found.event.collection.icid
    lost = f"its collection {icid} is mapped to no CPU, for no MAPC did so: messages are lost"
    text = f"is not taken by vCPU {evidence.vcpu}: {lost}"
    return Cause(
        "collection", text, f"queue MAPC for collection {icid}, then send again", on_its_way=False
    )
