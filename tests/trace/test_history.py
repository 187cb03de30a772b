"""The history of an interrupt: counts, what is open, what was lost."""

from __future__ import annotations

from armvirt.events import (
    Acknowledge,
    EndOfInterrupt,
    Event,
    ExceptionEntry,
    GicAccess,
    IccWrite,
    ItsCommand,
    Schedule,
    Stamp,
    TimerLine,
    VgicInject,
)
from armvirt.trace.history import History, Stray

UDF = 0x0200_0000
SVC = 0x15 << 26


class Guest:
    """Each call happens one ns after the one before, unless `same` says so."""

    def __init__(self) -> None:
        self.history, self.ns = History(), 0

    def does(self, *events: Event, vcpu: int = 0, same: bool = False) -> Guest:
        for event in events:
            self.ns += not same
            self.history(self.stamp(vcpu), event)
        return self

    def stamp(self, vcpu: int = 0, ns: int | None = None) -> Stamp:
        at = self.ns if ns is None else ns
        return Stamp(at, at, vcpu, 0x1000 * at)


def serve(intid: int = 27) -> list[Event]:
    return [Acknowledge(intid), EndOfInterrupt(intid, "EOIR1")]


def test_a_storm_is_counted_from_the_rise_of_the_line() -> None:
    guest = Guest().does(
        TimerLine("vtimer", 1), *serve(), TimerLine("vtimer", 0), TimerLine("vtimer", 1)
    )
    for _ in range(5):
        guest.does(*serve())
    past = guest.history.of(27, 0)
    assert (past.raised.count, past.taken.count, past.ended.count) == (2, 6, 6)
    assert past.rose == guest.stamp(ns=5) and (past.taken_high, past.ended_high) == (5, 5)
    assert past.taken.first == guest.stamp(ns=2) and past.lost is None and past.waiting is None


def test_a_line_that_fell_before_it_was_taken() -> None:
    guest = Guest().does(TimerLine("vtimer", 1), TimerLine("vtimer", 0))
    lost = guest.history.of(27, 0).lost
    assert lost is not None and (lost.how, lost.raised.ns, lost.stamp.ns) == ("fell", 1, 2)
    taken = Guest().does(TimerLine("vtimer", 1), Acknowledge(27), TimerLine("vtimer", 0))
    assert taken.history.of(27, 0).lost is None


def test_vcpu_put_is_no_fall() -> None:
    guest = (
        Guest()
        .does(TimerLine("vtimer", 1), Schedule(0, "put"))
        .does(TimerLine("vtimer", 0), same=True)
    )
    guest.does(TimerLine("vtimer", 1)).does(Schedule(0, "load"), same=True)
    past = guest.history.of(27, 0)
    assert past.lost is None and past.raised.count == 1 and past.waiting == guest.stamp(ns=1)


def test_a_latch_holds_one() -> None:
    guest = Guest().does(VgicInject(3, 1, 1), VgicInject(3, 1, 1), VgicInject(3, 1, 1))
    past = guest.history.of(3, 1)
    assert (past.raised.count, past.again) == (3, 2)
    guest.does(Acknowledge(3), vcpu=1)
    assert guest.history.of(3, 1).waiting is None and guest.history.of(3, 0).raised.count == 0


def test_pending_bits() -> None:
    guest = Guest().does(
        GicAccess("GICD", 0x204, 4, 1 << 8, 1), GicAccess("GICD", 0x284, 4, 1 << 8, 1)
    )
    lost = guest.history.of(40, 0).lost
    assert lost is not None and (lost.how, lost.stamp.ns) == ("GICD_ICPENDR1", 2)


def test_an_lpi_that_a_command_forgets() -> None:
    guest = Guest().does(VgicInject(8192, 1, 0), ItsCommand("DISCARD", 1, 1, 8192, 0))
    lost = guest.history.of(8192, 0).lost
    assert lost is not None and lost.how == "DISCARD"


def test_ends() -> None:
    """A second end drops the priority of what runs below; that one's own end then finds nothing."""
    guest = Guest().does(
        Acknowledge(50), Acknowledge(27), EndOfInterrupt(27, "EOIR1"), EndOfInterrupt(27, "EOIR1")
    )
    guest.does(EndOfInterrupt(50, "EOIR1"))
    cpu = guest.history.cpu(0)
    assert cpu.dropped == {50: Stray(27, guest.stamp(ns=4))} and cpu.idle_ends == {
        50: Stray(50, guest.stamp(ns=5))
    }
    assert guest.history.of(50, 0).ended.count == 0 and guest.history.of(27, 0).ended.count == 1
    guest.does(Acknowledge(50))
    assert not cpu.dropped and not cpu.idle_ends and [intid for intid, _ in cpu.running] == [50]


def test_deactivation_by_itself() -> None:
    guest = Guest().does(Acknowledge(27), EndOfInterrupt(27, "EOIR1"), EndOfInterrupt(27, "DIR"))
    past = guest.history.of(27, 0)
    assert (past.ended.count, past.deactivated.count) == (1, 1)


def test_exceptions_without_an_acknowledge() -> None:
    irq = ExceptionEntry("irq", 0, 0x4000, 0x280)
    guest = Guest().does(irq, Acknowledge(1023), irq)
    cpu = guest.history.cpu(0)
    assert (
        (cpu.entries, cpu.spurious.count) == (2, 1)
        and cpu.entry is not None
        and cpu.entry.stamp.ns == 3
    )
    guest.does(Acknowledge(27))
    assert guest.history.cpu(0).entries == 0


def test_faults_in_a_row() -> None:
    fault = ExceptionEntry("sync", UDF, 0x80200, 0x80200)
    guest = Guest().does(ExceptionEntry("irq", 0, 0x4000, 0x80280))
    guest.does(ExceptionEntry("sync", UDF, 0x80280, 0x80200), fault)
    found = guest.history.cpu(0).faults
    assert found is not None and found.times == 2 and found.stamp.ns == 3
    guest.does(ExceptionEntry("sync", SVC, 0x9000, 0x80400))
    assert guest.history.cpu(0).faults == found
    guest.does(ExceptionEntry("sync", UDF, 0x9000, 0x80200))
    again = guest.history.cpu(0).faults
    assert again is not None and again.times == 1


def test_polling() -> None:
    read, other = GicAccess("GICR", 0x14, 4, 0, 0), GicAccess("GICR", 0x0, 4, 0, 0)
    guest = Guest().does(other, read, read, read)
    poll = guest.history.cpu(0).poll
    assert poll is not None and (poll.offset, poll.times, poll.since.ns, poll.last.ns) == (
        0x14,
        3,
        2,
        4,
    )
    guest.does(GicAccess("GICR", 0x14, 4, 4, 0))
    changed = guest.history.cpu(0).poll
    assert changed is not None and changed.times == 1
    guest.does(GicAccess("GICR", 0x14, 4, 0, 1))
    assert guest.history.cpu(0).poll is None


def test_who_gets_an_sgi() -> None:
    guest = Guest().does(IccWrite("ICC_SGI1R_EL1", 5 << 24 | 6))
    guest.does(VgicInject(5, 1, 1), VgicInject(5, 1, 2), same=True)
    send = guest.history.last_send(5)
    assert send is not None and (send.register, send.targets) == ("ICC_SGI1R_EL1", (1, 2))
    guest.does(IccWrite("ICC_SGI1R_EL1", 5 << 24)).does(VgicInject(5, 1, -1), same=True)
    send = guest.history.last_send(5)
    assert send is not None and send.targets == ()
    assert (guest.history.sent[5].count, guest.history.to_nobody[5].count) == (2, 1)
    guest.does(GicAccess("GICD", 0xF00, 4, 1 << 16 | 6, 1)).does(VgicInject(6, 1, 0), same=True)
    send = guest.history.last_send(6)
    assert send is not None and (send.register, send.targets) == ("GICD_SGIR", (0,))
