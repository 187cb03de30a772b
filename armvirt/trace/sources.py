"""Register writes and ITS commands that set or clear the pending state of an interrupt without a
change of its line."""

from __future__ import annotations

from collections.abc import Iterator

from armvirt.arch import its
from armvirt.arch.gic import GICR_FRAME_SIZE, GICR_SIZE, ICPENDR, ISPENDR
from armvirt.arch.timer import PPI_PTIMER, PPI_VTIMER
from armvirt.events import GicAccess, ItsCommand
from armvirt.records import NamedTuple

TIMER_INTIDS = {"vtimer": PPI_VTIMER, "ptimer": PPI_PTIMER}
ANY = -1  # in place of a vCPU id: an interrupt that all vCPUs share
ARRAY_SIZE = 0x80  # bytes of an array of registers with a bit per INTID (IHI 0069 12.9)
PENDING_ARRAYS = {ISPENDR: "ISPENDR", ICPENDR: "ICPENDR"}
#: ITS commands that clear the pending state of an LPI, or map the LPI again.
FORGETS = frozenset({"CLEAR", "DISCARD", "MAPTI", "MAPI"})
BARRIERS = frozenset({"SYNC"})  # not shown: the ITS completes each command before the next
ERRORS = {
    value: name[2:]
    for name, value in vars(its).items()
    if name.startswith("E_") and name != "E_DONE"
}


class Pend(NamedTuple):
    """A pending bit that a write of ISPENDR or ICPENDR changes. ``sets`` is True for ISPENDR and
    False for ICPENDR. ``vcpu`` is `ANY` for an interrupt that all vCPUs share."""

    intid: int
    vcpu: int
    register: str
    sets: bool


def key_of(vcpu: int, intid: int) -> tuple[int, int]:
    """The key (vCPU, INTID) of an interrupt. The vCPU is `ANY` for a shared interrupt, which can
    move from one vCPU to another."""
    return vcpu if intid < 32 else ANY, intid


def pends(event: GicAccess, vcpu: int, model: int) -> Iterator[Pend]:
    """Yield the pending bits that an access by ``vcpu`` to GICD or GICR sets or clears. ``model``
    is the version of the GIC.

    Some bits are left out, because a write does not change them: the bits of SGIs in a GICv2 are
    read-only (IHI 0048 4.3.7), and the distributor of a GICv3 has no private interrupts (IHI 0069
    12.9).
    """
    offset, who = event.offset, vcpu
    if event.frame == "GICR":
        who, offset = divmod(offset, GICR_SIZE)
        offset -= GICR_FRAME_SIZE
    array = offset & ~(ARRAY_SIZE - 1)
    if not event.is_write or event.frame not in ("GICD", "GICR") or array not in PENDING_ARRAYS:
        return
    first = 8 * (offset - array)
    least = 0 if event.frame == "GICR" else 16 if model == 2 else 32
    register = f"{event.frame}_{PENDING_ARRAYS[array]}{first // 32}"
    for intid in range(max(first, least), first + 8 * event.size):
        if event.value >> intid - first & 1:
            yield Pend(intid, who if intid < 32 else ANY, register, array == ISPENDR)


def its_text(event: ItsCommand) -> str:
    """An ITS command as text: ``MAPTI, device 1, event 3, INTID 8195, collection 0``. The text of a
    skipped command also has the reason."""
    ids = {
        "device": event.device, "event": event.event, "INTID": event.intid, "collection": event.icid,
        "to CPU": event.target,
    }  # fmt: skip
    words = [event.op, *(f"{name} {value}" for name, value in ids.items() if value >= 0)]
    if not event.valid:
        words.append("unmapped")
    if event.error:
        words.append(f"skipped: {its_error(event.error)}")
    return ", ".join(words)


def its_error(error: int) -> str:
    """The name and number of an ITS error: ``MAPTI_ID_OOR (0x10a05)``."""
    return f"{ERRORS.get(error, 'error')} ({f'{error:#x}' if error > 0 else error})"
