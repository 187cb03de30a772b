"""Events become rows, and rows the lives of interrupts."""

from __future__ import annotations

import pytest

from armvirt import events as ev
from armvirt.board.virt import memmap
from armvirt.events import Event, Stamp
from armvirt.intids import IntidNames
from armvirt.machine import Machine
from armvirt.trace.lifecycle import Life, Statistics, statistics, summarize
from armvirt.trace.render import COLUMNS, latencies, plain, plain_summary, summary_rows
from armvirt.trace.sources import pends
from armvirt.trace.timeline import Row, Timeline

HZ = 62_500_000
NAMES = IntidNames(memmap)
LR_PENDING = 1 << 62 | 27


class Recorder:
    """A timeline whose rows are kept."""

    def __init__(self, virtual_start: int | None = 0) -> None:
        self.rows: list[Row] = []
        self.timeline = Timeline(self.rows.append, HZ, NAMES, virtual_start)

    def feed(self, *pairs: tuple[int, Event], vcpu: int = 0) -> Recorder:
        """Events at times in ns; instructions are counted as ns."""
        for ns, event in pairs:
            self.timeline(Stamp(ns, ns, vcpu, 0x1000 + ns), event)
        return self

    @property
    def stages(self) -> list[str]:
        return [row.stage for row in self.rows]


def tick(at: int) -> list[tuple[int, Event]]:
    """A timer interrupt: fires, is delivered 1 ns later, acknowledged after 60, ended after 36."""
    return [
        (at, ev.TimerLine("vtimer", 1)),
        (at, ev.VgicInject(27, 1, 0)),
        (at, ev.ListRegisterWrite(0, 0, 27, LR_PENDING)),
        (at + 1, ev.ExceptionEntry("irq", 0, 0x2000, 0xA80)),
        (at + 61, ev.Acknowledge(27)),
        (at + 90, ev.TimerLine("vtimer", 0)),
        (at + 97, ev.EndOfInterrupt(27, "EOIR1")),
    ]


def test_the_life_of_a_timer_interrupt() -> None:
    recorder = Recorder().feed(*tick(1000))
    assert recorder.stages == ["fire", "list", "deliver", "ack", "lower", "eoi"]
    (life,) = recorder.timeline.lives
    assert [getattr(life, stage).ns for stage in ("fire", "list", "deliver", "ack", "eoi")] == [
        1000,
        1000,
        1001,
        1061,
        1097,
    ]
    assert recorder.rows[-1].life is life
    assert latencies(life) == "1 + 60 + 36 = 97 ns, 97 insns"
    assert [row.delta for row in recorder.rows] == [1000, 0, 1, 60, 29, 7]


def test_a_level_that_falls_before_it_is_acknowledged() -> None:
    recorder = Recorder().feed(
        (10, ev.TimerLine("vtimer", 1)), (20, ev.TimerLine("vtimer", 0)), *tick(100)
    )
    assert recorder.rows[1].text == "vtimer line falls, never acknowledged"
    first, second = recorder.timeline.lives
    assert (first.ack, second.ack and second.ack.ns) == (None, 161)


def test_two_interrupts_in_one_exception() -> None:
    recorder = Recorder().feed(
        (10, ev.VgicInject(40, 1, 0)),
        (11, ev.ExceptionEntry("irq", 0, 0, 0)),
        (20, ev.Acknowledge(40)),
        (25, ev.VgicInject(41, 1, 0)),
        (30, ev.EndOfInterrupt(40, "EOIR1")),
        (31, ev.Acknowledge(41)),
        (40, ev.EndOfInterrupt(41, "EOIR1")),
    )
    one, two = recorder.timeline.lives
    assert one.deliver is not None
    assert two.deliver is None  # no exception was taken for it
    assert latencies(two) == "15 ns since fire, 15 insns"


def test_nested_interrupts() -> None:
    recorder = Recorder().feed(
        (1, ev.ExceptionEntry("irq", 0, 0, 0)),
        (2, ev.Acknowledge(5)),
        (3, ev.ExceptionEntry("irq", 0, 0, 0)),
        (4, ev.Acknowledge(6)),
        (5, ev.EndOfInterrupt(6, "EOIR1")),
        (6, ev.EndOfInterrupt(5, "EOIR1")),
    )
    assert [
        (life.intid, life.ack and life.ack.ns, life.eoi and life.eoi.ns)
        for life in recorder.timeline.lives
    ] == [
        (5, 2, 6),
        (6, 4, 5),
    ]


def test_list_registers_are_told_once_per_interrupt() -> None:
    again = [(1000, ev.ListRegisterWrite(0, 0, 27, LR_PENDING))]
    assert Recorder().feed(*tick(900)[:3], *again, *again).stages == ["fire", "list"]


def test_interrupts_of_two_cpus_do_not_mix() -> None:
    recorder = Recorder()
    recorder.feed((1, ev.TimerLine("vtimer", 1))).feed((2, ev.TimerLine("vtimer", 1)), vcpu=1)
    recorder.feed((3, ev.Acknowledge(27)), vcpu=1).feed((4, ev.Acknowledge(27)))
    assert [
        (life.vcpu, life.fire and life.fire.ns, life.ack and life.ack.ns)
        for life in recorder.timeline.lives
    ] == [
        (0, 1, 4),
        (1, 2, 3),
    ]


def test_latency_across_cpus_has_no_instructions() -> None:
    life = Life(40, 1, fire=Stamp(10, 500, 0, 0), ack=Stamp(30, 7, 1, 0))
    assert life.latency("fire", "ack") == (20, None)


def test_spurious_and_deactivation() -> None:
    recorder = Recorder().feed(
        (1, ev.Acknowledge(1023)),
        (2, ev.Acknowledge(40)),
        (3, ev.EndOfInterrupt(40, "EOIR1")),
        (4, ev.EndOfInterrupt(40, "DIR")),
    )
    assert [row.text for row in recorder.rows] == [
        "1023, spurious",
        "INTID 40",
        "INTID 40",
        "INTID 40 by DIR",
    ]
    assert len(recorder.timeline.lives) == 1


def test_the_special_intids_are_those_from_1020_to_1023_only() -> None:
    recorder = Recorder().feed(
        (1, ev.Acknowledge(1022)), (2, ev.VgicInject(8192, 1, 0)), (3, ev.Acknowledge(8192))
    )
    assert [row.text for row in recorder.rows] == [
        "1022, spurious",
        "raised, INTID 8192, LPI",
        "INTID 8192",
    ]


def test_an_interrupt_that_is_sent_on_is_one_life() -> None:
    """A shared interrupt is raised for one CPU, routed to another, and taken there."""
    pending = 1 << 62 | 40
    recorder = Recorder().feed(
        (1, ev.VgicInject(40, 1, 0)),
        (2, ev.ListRegisterWrite(0, 0, 40, pending)),
        (3, ev.ListRegisterWrite(0, 0, 40, pending)),
        (4, ev.ListRegisterWrite(1, 2, 40, pending)),
    )
    recorder.feed((5, ev.Acknowledge(40)), vcpu=1)
    (life,) = recorder.timeline.lives
    assert (life.vcpu, life.fire and life.fire.ns, life.list and life.list.ns) == (1, 1, 4)
    assert [(row.stage, row.vcpu) for row in recorder.rows] == [
        ("fire", 0),
        ("list", 0),
        ("list", 1),
        ("ack", 1),
    ]


def test_a_list_register_that_does_not_offer_it_is_no_step() -> None:
    """An SGI sent again while it is active: a GICv2's list register stays active until the guest
    ends it."""
    recorder = Recorder().feed(
        (1, ev.VgicInject(7, 1, 0)), (2, ev.ListRegisterWrite(0, 0, 7, 2 << 62 | 7))
    )
    assert recorder.stages == ["fire"]


def gicd(offset: int, value: int) -> ev.GicAccess:
    return ev.GicAccess("GICD", offset, 4, value, 1)


def test_pending_by_register() -> None:
    recorder = Recorder().feed(
        (1, gicd(0x204, 1 << 8)),  # GICD_ISPENDR1
        (2, gicd(0x204, 1 << 8)),
        (3, gicd(0x284, 1 << 8)),  # GICD_ICPENDR1: the next is another one
        (4, gicd(0x204, 1 << 8)),
        (5, ev.Acknowledge(40)),
    )
    assert [row.text for row in recorder.rows] == [
        *["written to GICD_ISPENDR1, INTID 40, SPI"] * 2,
        "INTID 40",
    ]
    assert [life.ack is not None for life in recorder.timeline.lives] == [False, True]
    assert recorder.timeline.lives[1].fire == Stamp(4, 4, 0, 0x1004)


@pytest.mark.parametrize(
    ("model", "event", "found"),
    [
        (3, gicd(0x200, 1 << 3 | 1 << 27), []),  # private ones are in the redistributor
        (2, gicd(0x200, 1 << 3 | 1 << 27), [(1, 27)]),  # SGIs have SPENDSGIR
        (2, gicd(0x204, 3), [(-1, 32), (-1, 33)]),
        (3, ev.GicAccess("GICR", 0x2_0000 + 0x1_0200, 4, 1 << 3, 1), [(1, 3)]),
        (3, ev.GicAccess("GICR", 0x200, 4, 1 << 3, 1), []),  # RD_base
        (3, ev.GicAccess("GICD", 0x204, 4, 1, 0), []),  # a read
        (2, ev.GicAccess("GICC", 0x204, 4, 1, 1), []),
        (3, ev.GicAccess("GICD", 0x205, 1, 1, 1), [(-1, 40)]),
        (3, gicd(0x27C, 1), [(-1, 992)]),
    ],
)
def test_which_pending_bits_are_written(
    model: int, event: ev.GicAccess, found: list[tuple[int, int]]
) -> None:
    assert [(pend.vcpu, pend.intid) for pend in pends(event, 1, model)] == found


def test_messages_that_come_again() -> None:
    """A second SGI or LPI while the first waits makes no second interrupt, but the person wants to
    see it."""
    again = ((1, ev.VgicInject(5, 1, 0)), (2, ev.VgicInject(5, 1, 0)), (3, ev.VgicInject(40, 1, 0)))
    recorder = Recorder().feed(*again, (4, ev.VgicInject(40, 1, 0)), vcpu=1)
    assert [row.text for row in recorder.rows] == [
        "sent by CPU 1, INTID 5, SGI", "sent by CPU 1 again, INTID 5, SGI", "raised, INTID 40, SPI",
    ]  # fmt: skip
    assert len(recorder.timeline.lives) == 2


def test_its_commands() -> None:
    recorder = Recorder().feed(
        (1, ev.ItsCommand("MAPC", -1, -1, -1, 0, 2, 1, 1)),
        (2, ev.ItsCommand("MAPTI", 7, 3, 8195, 0, 2)),
        (3, ev.ItsCommand("SYNC", -1, -1, -1, 0)),
        (4, ev.ItsCommand("INT", 7, 4, -1, 0x1_0307)),
        (5, ev.ItsCommand("MAPD", 7, -1, -1, 0, valid=0)),
        (6, ev.ItsCommand("0x42", -1, -1, -1, -19)),
    )
    assert [(row.stage, row.text) for row in recorder.rows] == [
        ("its", "MAPC, collection 2, to CPU 1"),
        ("its", "MAPTI, device 7, event 3, INTID 8195, collection 2"),
        ("its", "INT, device 7, event 4, skipped: INT_UNMAPPED_INTERRUPT (0x10307)"),
        ("its", "MAPD, device 7, unmapped"),
        ("its", "0x42, skipped: UNKNOWN (-19)"),
    ]


def test_after_discard_the_lpi_is_another_one() -> None:
    recorder = Recorder().feed(
        (1, ev.VgicInject(8192, 1, 0)),
        (2, ev.ItsCommand("DISCARD", 0, 0, 8192, 0)),
        (3, ev.VgicInject(8192, 1, 0)),
    )
    assert recorder.stages == ["fire", "its", "fire"]


@pytest.mark.parametrize(
    ("register", "value", "text"),
    [
        ("ctl", 1, "CNTV_CTL_EL0 = ENABLE"),
        ("ctl", 3, "CNTV_CTL_EL0 = ENABLE|IMASK"),
        ("ctl", 0, "CNTV_CTL_EL0 = 0"),
        ("tval", 62_500, "CNTV_TVAL_EL0 = 62500 (in 1 ms)"),
        ("tval", 0xFFFF_FFFF, "CNTV_TVAL_EL0 = -1 (16 ns ago)"),
        ("cval", 187_500, "CNTV_CVAL_EL0 = 0x2dc6c (in 1 ms)"),
        ("cval", 0, "CNTV_CVAL_EL0 = 0x0 (2 ms ago)"),
        ("cval", (1 << 64) - 1, "CNTV_CVAL_EL0 = 0xffffffffffffffff (never)"),
    ],
)
def test_programming(register: str, value: int, text: str) -> None:
    recorder = Recorder().feed((2_000_000, ev.TimerWrite("vtimer", register, value)))
    assert recorder.rows[0].text == text


def test_without_a_known_count_there_is_no_distance() -> None:
    recorder = Recorder(virtual_start=None).feed((5, ev.TimerWrite("vtimer", "cval", 64)))
    recorder.feed((6, ev.TimerWrite("ptimer", "cval", 64)))
    assert [row.text for row in recorder.rows] == ["CNTV_CVAL_EL0 = 0x40", "CNTP_CVAL_EL0 = 0x40"]


def test_console_lines_are_whole_and_harmless() -> None:
    recorder = Recorder()
    for byte in b"a\x1b[31m\r\nrest":
        recorder.feed((1, ev.Console("tx", byte)))
    recorder.feed((2, ev.Console("rx", 65)))
    recorder.timeline.flush()
    assert [(row.stage, row.text) for row in recorder.rows] == [
        ("console", "a\\x1b[31m"),
        ("console", "rest"),
    ]


def test_plain_rows() -> None:
    row = Row(1_005_009, 1, 0, "deliver", "IRQ to 0xa80 from", 0x40)
    assert plain(row) == "    1,005,009           +1   0 deliver  IRQ to 0xa80 from 0x40"
    assert plain(row, lambda pc: "main+0x4").endswith("from main+0x4")


def test_summary_of_two_ticks() -> None:
    recorder = Recorder().feed(*tick(1000), *tick(2010))
    (summary,) = recorder.timeline.summaries()
    assert (summary.intid, summary.fired, summary.acknowledged, summary.ended) == (27, 2, 2, 2)
    assert summary.period_ns == Statistics(1, 1010, 1010, 1010)
    assert summary.steps["deliver", "ack"] == (Statistics(2, 60, 60, 60), Statistics(2, 60, 60, 60))
    rows = summary_rows(summary)
    assert all(len(row) == len(COLUMNS) for row in rows)
    text = plain_summary([summary], NAMES)
    assert text.startswith("INTID 27, vtimer: fired 2, acknowledged 2, ended 2\n")
    assert "→" not in text


def test_many_intids_are_one_table() -> None:
    recorder = Recorder()
    for intid in range(40, 45):
        recorder.feed(
            (10 * intid, ev.VgicInject(intid, 1, 0)), (10 * intid + 7, ev.Acknowledge(intid))
        )
    lines = plain_summary(recorder.timeline.summaries(), NAMES).splitlines()
    assert len(lines) == 2 + 5
    assert lines[2].split() == ["40", "1", "1", "0", "-", "-", "-", "-", "-"]


def test_no_interrupt_at_all() -> None:
    assert plain_summary(summarize([]), NAMES) == "no interrupt was raised"


def test_statistics() -> None:
    assert statistics([]) is None
    assert statistics([5, 1, 3]) == Statistics(3, 1, 3, 5)


# What EL2 does to a line is not the guest's doing


def put(at: int) -> list[tuple[int, Event]]:
    """vcpu_put while the timer's line is high: the comparator is switched off."""
    return [(at, ev.Schedule(0, "put")), (at, ev.TimerLine("vtimer", 0))]


def load(at: int, level: int = 1) -> list[tuple[int, Event]]:
    """vcpu_load; with ``level`` the guest's timer is due as before."""
    return [*([(at, ev.TimerLine("vtimer", 1))] if level else []), (at, ev.Schedule(0, "load"))]


def test_a_line_that_vcpu_put_takes_down_has_not_fallen() -> None:
    first, *later = tick(1000)
    away = [*put(1000), *load(1500), *put(1600), *load(1700)]
    recorder = Recorder().feed(first, *away, *((ns + 900, event) for ns, event in later))
    assert recorder.stages == ["fire", "list", "deliver", "ack", "lower", "eoi"]
    (life,) = recorder.timeline.lives
    assert life.fire is not None and life.ack is not None and life.fire.ns == 1000
    assert "never" not in " ".join(row.text for row in recorder.rows)


def test_a_line_that_fell_while_the_vcpu_was_on_no_cpu() -> None:
    recorder = Recorder().feed(tick(1000)[0], *put(1100), *load(1500, level=0))
    assert [(row.stage, row.ns) for row in recorder.rows] == [("fire", 1000), ("lower", 1500)]
    assert recorder.rows[-1].text.endswith("never acknowledged")


def test_a_line_that_the_guest_takes_down() -> None:
    recorder = Recorder().feed(
        tick(1000)[0], *put(1100), *load(1200), (1300, ev.TimerLine("vtimer", 0))
    )
    assert recorder.rows[-1].text == "vtimer line falls, never acknowledged"


@pytest.mark.parametrize(("cpus", "quantum_ns", "pcpus"), [(2, 7_000, 1), (4, 3_000, 2)])
def test_no_firing_is_counted_twice(cpus: int, quantum_ns: int, pcpus: int) -> None:
    """gic-ppi leaves its timers pending while its CPUs take turns: vcpu_put takes down the lines of
    18 and of 82."""
    rows: list[Row] = []
    timeline = Timeline(rows.append, HZ, NAMES)
    with Machine(
        "gic-ppi", cpus=cpus, quantum_ns=quantum_ns, pcpus=pcpus, sinks=[timeline], trace_hash=False
    ) as machine:
        assert machine.run(max_time_ns=10**9).verdict == "pass"
    fired = [life for life in timeline.lives if life.fire is not None and life.intid in (27, 30)]
    assert fired and not [row for row in rows if "never acknowledged" in row.text]


# SGIs that nobody gets


def test_an_sgi_to_nobody_has_a_row_and_no_life() -> None:
    recorder = Recorder().feed((5, ev.VgicInject(3, 1, -1)))
    assert [(row.stage, row.text) for row in recorder.rows] == [
        ("fire", "sent by CPU 0 to nobody, INTID 3, SGI")
    ]
    assert not recorder.timeline.lives
