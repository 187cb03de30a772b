"""The Python API: verdicts and exit statuses, diagnoses, limits, marks, resets, semihosting,
errors, saved state."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hyp.hyp_tools import DEVICE, SYSTEM_RESET, Asm, power_off

from armvirt.board.semihosting import Op
from armvirt.errors import ImageError, UserError
from armvirt.events import Event, Stamp
from armvirt.machine import EXIT_STATUS, Machine, Result
from armvirt.machine.migrate import migrate_test
from armvirt.script import Script

ENTRY = 0x4008_0000  # of a flat binary
UART = 0x0900_0000
ADP_STOPPED_APPLICATION_EXIT = 0x20026
LIMIT_NS = 10_000_000

Make = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Make:
    """Makes machines of words that a function writes (a flat binary), or of a bundled guest's
    name."""

    def make(guest: str | Callable[[Asm], None], **options: object) -> Machine:
        if not isinstance(guest, str):
            a = Asm(ENTRY)
            guest(a)
            path = tmp_path / "guest.bin"
            path.write_bytes(a.code())
            return Machine(path, memory="16M", **options)  # type: ignore[arg-type]
        return Machine(guest, **options)  # type: ignore[arg-type]

    return make


def say(a: Asm, text: str) -> None:
    """Send text by the UART's data register; X9 and X10 are used."""
    a.mov(9, UART)
    for byte in text.encode():
        a.movz(10, byte)
        a.str_w(10, 9)


# -- verdicts --


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("VERDICT: PASS\n", "pass"),
        ("VERDICT: FAIL (1 of 2)\r\n", "fail"),
        ("x\nVERDICT: FAIL\nVERDICT: PASS (3 checks)\n", "pass"),  # the last one counts
        ("my VERDICT: PASS\n", "off"),  # not at the start of a line
        ("VERDICT: PASSED\n", "off"),
        ("VERDICT:\n", "off"),
        ("", "off"),
    ],
)
def test_what_the_guest_says(machine: Make, text: str, verdict: str) -> None:
    result = machine(lambda a: (say(a, text), power_off(a))).run()
    assert (result.verdict, result.console) == (verdict, text)
    assert result.exit_status == EXIT_STATUS[verdict]
    assert not result.diagnosis and result.guest_code is None


def test_exit_statuses() -> None:
    assert EXIT_STATUS == {"pass": 0, "off": 0, "reset": 0, "fail": 1, "stuck": 3, "limit": 4}
    for verdict, status in EXIT_STATUS.items():
        assert Result(verdict, 0, 0, "").exit_status == status


def test_a_verdict_and_then_a_dead_end(machine: Make) -> None:
    """What the guest said does not excuse it."""

    def write(a: Asm) -> None:
        say(a, "VERDICT: PASS\n")
        a.label("here")
        a.b("here")

    assert machine(write).run().verdict == "stuck"


# -- diagnoses --


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("spin", ["branches to itself with interrupts masked", "main+"]),
        ("vector-fault", ["faults in its exception vectors again and again", "pc 0x1000000200"]),
        (
            "wfi-forever",
            [
                "waits for an interrupt (WFI) that nothing will send",
                "main+",
                "virtual timer",
                "INTID 27",
            ],
        ),
    ],
)
def test_diagnoses(name: str, parts: list[str]) -> None:
    """PC, symbol and cause, in one line; the PC is in the result too."""
    result = Machine(name).run(max_time_ns=LIMIT_NS)
    assert (result.verdict, result.exit_status) == ("stuck", 3)
    for part in (*parts, f"pc {result.pc:#x}"):
        assert part in result.diagnosis
    assert "\n" not in result.diagnosis


def test_a_dead_end_without_symbols(machine: Make) -> None:
    def write(a: Asm) -> None:
        a.nop()
        a.label("here")
        a.b("here")

    result = machine(write).run()
    assert (
        result.diagnosis
        == f"the guest branches to itself with interrupts masked: pc {ENTRY + 4:#x}"
    )


def test_wfi_with_nothing_to_wait_for(machine: Make) -> None:
    result = machine(lambda a: a.wfi()).run()
    assert result.verdict == "stuck"
    assert result.diagnosis.startswith(
        "the guest waits for an interrupt (WFI) that nothing will send"
    )


# -- limits and marks --


def test_limits() -> None:
    with Machine("runaway") as guest:
        result = guest.run(max_insns=100_000)
        assert (result.verdict, result.exit_status, result.insns) == ("limit", 4, 100_000)
        assert "100000 instructions" in result.diagnosis
        result = guest.run(max_time_ns=200_000)
        assert (result.verdict, result.ns) == ("limit", 200_000) and "200000 ns" in result.diagnosis
        assert guest.run(timeout_s=0.0).verdict == "limit"


def test_marks(machine: Make) -> None:
    """`run_until` stops at the instruction, the time, or the byte that completes the text."""

    def write(a: Asm) -> None:
        say(a, "one two ")
        a.nop()
        a.nop()
        say(a, "three")
        power_off(a)

    guest = machine(write)
    assert guest.run_until(insns=3) is None and guest.insns == 3
    assert guest.run_until(ns=4) is None and guest.ns == 4
    assert guest.run_until(console="two") is None
    assert guest.console.output == b"one two"
    assert guest.run_until(console=b"thr", insns=1_000_000) is None
    assert guest.console.output == b"one two thr"
    ended = guest.run_until(console="never")
    assert (
        ended is not None
        and ended.verdict == "off"
        and ended is guest.run() is guest.run_until(insns=1)
    )


def test_a_mark_that_was_not_reached(machine: Make) -> None:
    """It is forgotten: a later one is found where it appears."""
    guest = machine(lambda a: (say(a, "first second third"), power_off(a)))
    assert guest.run_until(console="second", insns=2) is None
    assert guest.console.output == b""
    assert guest.run_until(console="th", insns=5) is None
    assert guest.run_until(console="third") is None
    assert guest.console.output == b"first second third"
    assert guest.console.listeners == []


def test_a_mark_is_looked_for_from_here_on(machine: Make) -> None:
    guest = machine(lambda a: (say(a, "ab ab"), power_off(a)))
    for expected in (b"ab", b"ab ab"):
        assert guest.run_until(console="ab") is None
        assert guest.console.output == expected


def test_one_who_listens_hears_everything(machine: Make) -> None:
    heard = bytearray()
    guest = machine(lambda a: (say(a, "some text"), power_off(a)))
    guest.console.listeners.append(heard.extend)
    guest.run_until(console="some")
    guest.run()
    assert heard == b"some text"


# -- resets --


def counting_resets(a: Asm) -> None:
    """Counts in RAM, which survives; its own image does not. Says its image's word, and resets
    until 3."""
    a.mov(1, 0x4020_0000)
    a.ldr(2, 1)
    a.add_imm(2, 2, 1)
    a.str_(2, 1)
    a.mov(9, UART)
    a.adr(3, "word")
    a.ldr_w(4, 3)
    a.str_w(4, 9)
    a.movz(5, ord("b"))
    a.str_w(5, 3)  # spoils the image
    a.cmp_imm(2, 3)
    a.b_cond(0, "end")
    a.mov(0, SYSTEM_RESET)
    a.hvc(0)
    a.label("end")
    power_off(a)
    a.align(8)
    a.label("word")
    a.word(ord("a"), 0)


def test_a_reset_loads_the_images_again(machine: Make) -> None:
    """RAM keeps its contents elsewhere, and time goes on."""
    result = machine(counting_resets).run()
    assert (result.verdict, result.console) == ("off", "aaa")
    once = machine(counting_resets, reboot=False).run()
    assert result.ns > 2.5 * once.ns and result.insns == result.ns


def test_a_reset_that_ends_the_run(machine: Make) -> None:
    result = machine(counting_resets, reboot=False).run()
    assert (result.verdict, result.exit_status, result.console) == ("reset", 0, "a")


def test_a_verdict_before_a_reset(machine: Make) -> None:
    """The guest said fail, and then reset: that is a failure, not a reset."""

    def write(a: Asm) -> None:
        say(a, "VERDICT: FAIL\n")
        a.mov(0, SYSTEM_RESET)
        a.hvc(0)

    assert machine(write, reboot=False).run().verdict in ("fail", "reset")


def test_devices_are_reset(machine: Make) -> None:
    """What the first round wrote into the UART's registers is gone in the second."""

    def write(a: Asm) -> None:
        a.mov(1, 0x4020_0000)
        a.mov(9, UART)
        a.ldr_w(2, 1)
        a.ldr_w(3, 9, 0x38)  # IMSC
        a.str_w(3, 1, 4)
        a.cbnz(2, "end")
        a.movz(4, 0x10)
        a.str_w(4, 9, 0x38)
        a.str_w(4, 1)
        a.mov(0, SYSTEM_RESET)
        a.hvc(0)
        a.label("end")
        power_off(a)

    guest = machine(write)
    assert guest.run().verdict == "off"
    assert guest.board.vm.read_memory(0x4020_0000, 8) == struct.pack("<2I", 0x10, 0)


# -- semihosting --


def semihosting_exit(reason: int, code: int, operation: int = Op.EXIT) -> Callable[[Asm], None]:
    def write(a: Asm) -> None:
        a.mov(0, operation)
        a.adr(1, "block")
        a.hlt(0xF000)
        say(a, "still here")
        a.label("here")
        a.b("here")
        a.align(8)
        a.label("block")
        a.word(reason, 0, code, 0)

    return write


@pytest.mark.parametrize(("code", "verdict"), [(0, "pass"), (1, "fail"), (42, "fail")])
@pytest.mark.parametrize("operation", [Op.EXIT, Op.EXIT_EXTENDED])
def test_semihosting_exit(machine: Make, operation: int, code: int, verdict: str) -> None:
    """The run is over at the HLT, with the guest's code."""
    result = machine(
        semihosting_exit(ADP_STOPPED_APPLICATION_EXIT, code, operation), semihosting=True
    ).run()
    assert (result.verdict, result.guest_code, result.console, result.diagnosis) == (
        verdict,
        code,
        "",
        "",
    )


def test_a_verdict_before_a_semihosting_exit(machine: Make) -> None:
    def write(a: Asm) -> None:
        say(a, "VERDICT: FAIL\n")
        semihosting_exit(ADP_STOPPED_APPLICATION_EXIT, 0)(a)

    result = machine(write, semihosting=True).run()
    assert (result.verdict, result.guest_code) == ("fail", 0)


def test_semihosting_is_off_by_default(machine: Make) -> None:
    """HLT is UNDEFINED; this guest has no vectors."""
    result = machine(semihosting_exit(ADP_STOPPED_APPLICATION_EXIT, 0)).run(max_time_ns=LIMIT_NS)
    assert result.verdict == "stuck" and result.guest_code is None
    assert (
        "HLT #0xF000 (a semihosting call) is UNDEFINED without --semihosting, executed at pc"
        in result.diagnosis
    )


@pytest.mark.parametrize(
    ("word", "feature"),
    [(0xD5031001, "wfxt"), (0xD5031021, "wfxt"), (0xD53BE0A0, "ecv"), (0xD53BE0C0, "ecv")],
)
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_an_instruction_of_a_feature_that_is_off_names_its_option(
    machine: Make, word: int, feature: str, engine: str
) -> None:
    """WFET x1, WFIT x1, MRS x0 of CNTPCTSS_EL0 and of CNTVCTSS_EL0."""

    def write(a: Asm) -> None:
        a.nop()
        a.word(word)

    result = machine(write, engine=engine).run(max_time_ns=LIMIT_NS)
    assert result.verdict == "stuck"
    assert (
        f"UNDEFINED without --cpu-features {feature}, executed at pc {ENTRY + 4:#x}"
        in result.diagnosis
    )


def test_an_instruction_that_a_guest_survives_is_no_diagnosis(machine: Make) -> None:
    def write(a: Asm) -> None:
        a.hlt(0xF000)
        power_off(a)

    with machine(write, semihosting=True) as guest:
        assert guest.run().diagnosis == ""


def test_semihosting_console(machine: Make) -> None:
    """SYS_WRITE0 out, SYS_READC in; a guest that waits for input sleeps."""

    def write(a: Asm) -> None:
        a.mov(0, Op.WRITE0)
        a.adr(1, "text")
        a.hlt(0xF000)
        a.mov(0, Op.READC)
        a.hlt(0xF000)
        a.movr(19, 0)
        power_off(a)
        a.align(8)
        a.label("text")
        a.word(*struct.unpack("<2I", b"name? \0\0"))

    guest = machine(write, semihosting=True)
    guest.console.expect("name? ").send("Z")
    result = guest.run()
    assert (result.verdict, result.console) == ("off", "name? ")
    assert guest.board.vcpus[0].context.x(19) == ord("Z")


# -- scripts --


def test_a_script_that_is_not_finished() -> None:
    script = Script.from_pairs([("echo> ", "hello\n"), ("echo> ", "quit\n"), ("no such text", "x")])
    result = Machine("console-echo", script=script).run()
    assert (result.verdict, result.exit_status) == ("fail", 1)
    assert result.diagnosis == "the script still waited for 'no such text'"


def test_a_script_by_hand() -> None:
    with Machine("console-echo") as guest:
        guest.console.expect("echo> ").send("hello\n").expect("hello").expect("echo> ").send(
            "quit\n"
        )
        assert guest.run().verdict == "pass"


# -- what is recorded --


def test_recent_events() -> None:
    result = Machine("hello").run()
    assert result.recent and len(result.recent) <= 64
    stamps = [stamp.ns for stamp, _ in result.recent]
    assert stamps == sorted(stamps) and stamps[-1] == result.ns


def test_nothing_is_recorded_unless_somebody_looks() -> None:
    with Machine("hello", trace_hash=False) as guest:
        assert not guest.bus.active
        result = guest.run()
    assert result.trace_hash is None and result.recent == []


def test_sinks_get_every_event() -> None:
    seen: list[tuple[Stamp, Event]] = []
    with Machine(
        "hello", sinks=[lambda stamp, event: seen.append((stamp, event))], trace_hash=False
    ) as guest:
        result = guest.run()
    assert result.trace_hash is None and seen[-len(result.recent) :] == result.recent
    assert (
        bytes(e.byte for _, e in seen if e.kind == "console" and e.direction == "tx").decode()
        == result.console
    )  # type: ignore[attr-defined]


def test_watching_changes_nothing() -> None:
    plain, watched = (
        Machine("hello", trace_hash=False).run(),
        Machine("hello", sinks=[lambda stamp, event: None]).run(),
    )
    assert (plain.ns, plain.insns, plain.console) == (watched.ns, watched.insns, watched.console)


# -- errors --


class OwnError(Exception):
    pass


def test_an_error_in_a_device(machine: Make) -> None:
    guest = machine(lambda a: (a.mov(1, UART), a.ldr_w(2, 1), power_off(a)))

    def broken(offset: int, size: int) -> int:
        raise OwnError("in a device")

    guest.board.devices["uart"].read = broken  # type: ignore[method-assign]
    with pytest.raises(OwnError, match="in a device"):
        guest.run()


def test_an_error_in_a_sink(machine: Make) -> None:
    def sink(stamp: Stamp, event: Event) -> None:
        if event.kind == "console":
            raise OwnError("in a sink")

    with pytest.raises(OwnError, match="in a sink"):
        machine(lambda a: (say(a, "x"), power_off(a)), sinks=[sink]).run()


def test_an_error_of_one_who_listens(machine: Make) -> None:
    def heard(data: bytes) -> None:
        raise OwnError("in a listener")

    guest = machine(lambda a: (say(a, "x"), power_off(a)))
    guest.console.listeners.append(heard)
    with pytest.raises(OwnError, match="in a listener"):
        guest.run()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image": None}, "no guest"),
        ({"image": "hello", "gic": 4}, "gic=4: '4' is not one of 2, 3"),
        ({"image": "hello", "gic": 2, "cpus": 9}, "a GICv2 has at most 8 CPUs; use --gic 3"),
        ({"image": "smp-boot", "cpus": 9}, "smp-boot was made for 1 to 8 CPUs, not for 9"),
        ({"image": "hello", "cpus": 0}, "cpus=0"),
        ({"image": "hello", "cpus": 1000}, "cpus=1000"),
        ({"image": "hello", "memory": "1K"}, "memory size 1K"),
        ({"image": "hello", "memory": "much"}, "much"),
        ({"image": "hello", "cntfrq": 0}, "frequency"),
        ({"image": "hello", "engine": "quick"}, "quick"),
        ({"image": "hello", "cpu": "z80"}, "z80"),
        ({"image": "helo"}, "did you mean hello"),
        ({"image": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"image": "hello", "initrd": "/nowhere/initrd"}, "/nowhere/initrd"),
        ({"image": "hello", "dtb": "/nowhere/tree"}, "/nowhere/tree"),
        ({"bios": "/nowhere/rom"}, "/nowhere/rom"),
    ],
)
def test_mistakes(options: dict[str, object], text: str) -> None:
    """One line that names what is wrong, before anything runs."""
    with pytest.raises(UserError) as caught:
        Machine(**options)  # type: ignore[arg-type]
    assert text in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    if "/" in text:
        assert isinstance(caught.value, ImageError)


# -- saved state --


def test_an_end_is_not_for_ever() -> None:
    """Loading a state from before the end takes the end back."""
    with Machine("hello", memory="16M") as guest:
        guest.run_until(insns=10_000)
        state, memory = guest.state(), bytes(guest.board.ram.map)
        result = guest.run()
        guest.board.ram.map[:] = memory
        guest.load(state)
        assert guest.insns == 10_000
        again = guest.run()
    assert (again.verdict, again.ns, again.insns, again.console) == (
        "pass",
        result.ns,
        result.insns,
        result.console,
    )
    assert again is not result


def test_where_nobody_answers(machine: Make) -> None:
    """A hole of the board's map: an external abort, which a guest without vectors does not
    survive."""
    result = machine(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), power_off(a))).run(
        max_time_ns=LIMIT_NS
    )
    assert result.verdict == "stuck"


@pytest.mark.parametrize("list_registers", [1, 2, 16])
@pytest.mark.parametrize("priority_bits", [5, 7])
def test_virtual_cpu_interfaces_of_other_shapes(list_registers: int, priority_bits: int) -> None:
    with Machine("sgi-spi", list_registers=list_registers, priority_bits=priority_bits) as guest:
        vif = guest.host.pe.vif
        assert (len(vif.lr), vif.prebits) == (list_registers, priority_bits)
        assert guest.run().verdict == "pass"


@pytest.mark.parametrize(
    ("name", "value"), [("list_registers", 0), ("list_registers", 17), ("priority_bits", 8)]
)
def test_shapes_that_cannot_be(name: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{name}={value}: .*outside"):
        Machine("hello", **{name: value})  # type: ignore[arg-type]


# -- stops at an address --


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_until_an_address(engine: str) -> None:
    """The first instruction of the handler, at the first tick and, one instruction on, at the
    second; the rest of the run is what it would have been."""
    with (
        Machine("vtimer-tick", engine=engine) as guest,
        Machine("vtimer-tick", engine=engine) as free,
    ):
        symbols = guest.symbols
        assert symbols is not None
        tick = symbols.address_of("tick")
        assert tick is not None and guest.run_until(pc=tick) is None
        first = guest.ns
        assert guest.board.vcpus[0].context.pc == tick and 1_000_000 < first < 1_020_000
        assert guest.run_until(pc=tick) is None and guest.ns == first, "it is there already"
        assert guest.run_until(insns=guest.insns + 1) is None
        assert guest.run_until(pc=tick) is None and guest.ns == first + 1_000_000
        assert (
            guest.run_until(pc=tick + 8, ns=guest.ns + 1) is None and guest.ns == first + 1_000_001
        )
        assert guest.run() == free.run()


def test_an_address_that_is_never_reached() -> None:
    with Machine("hello") as guest:
        result = guest.run_until(pc=0x4000_0000)
        assert result is not None and result.verdict == "pass"


# -- arguments --


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"cntfrq": "24MHz"}, "cntfrq", 24_000_000),
        ({"cntfrq": 62.5e6}, "cntfrq", 62_500_000),
        ({"memory": "1.5G"}, "memory", 3 << 29),
        ({"memory": 1 << 24}, "memory", 1 << 24),
        ({"gic": "2"}, "gic", 2),
        ({"cpus": "2"}, "cpus", 2),
        ({"quantum_ns": "1ms", "pcpus": "2", "cpus": 2}, "quantum_ns", 1_000_000),
        ({"quantum_ns": 100_000, "pcpus": 2, "cpus": 2}, "quantum_ns", 100_000),
        ({"rtc_base": "2024-02-29"}, "rtc_base", 1_709_164_800),
        ({"cntvoff": -1}, "cntvoff", (1 << 64) - 1),
        ({"cpu_features": ("ecv", "wfxt")}, "cpu_features", ("ecv", "wfxt")),
        ({"cpu_features": "ecv"}, "cpu_features", ("ecv",)),
    ],
)
def test_an_argument_may_be_the_text_of_its_option(
    arguments: dict[str, object], field: str, value: object
) -> None:
    with Machine("hello", **arguments) as guest:  # type: ignore[arg-type]
        assert getattr(guest.config, field) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": 512}, 'memory=512: a number counts bytes here; write "512M" for 512 MiB'),
        (
            {"memory": "lots"},
            "memory='lots': memory size 'lots' is not a size; write for example 512M or 2G",
        ),
        ({"memory": 1.5}, "memory=1.5"),
        ({"memory": [1]}, "memory=[1]: write a number or a text"),
        ({"cntfrq": "fast"}, "write for example 62.5MHz"),
        ({"cntfrq": True}, "cntfrq=True: write a number or a text"),
        ({"cntfrq": 10**5000}, "cntfrq="),
        ({"cpus": 0}, "cpus=0: CPU count 0 is outside 1..123"),
        ({"gic": 4}, "gic=4: '4' is not one of 2, 3"),
        ({"vhe": "yes"}, "vhe='yes': write True or False"),
        ({"its": 1}, "its=1: write True or False"),
        ({"append": b"quiet"}, "append=b'quiet': write a text"),
        ({"initrd": 3}, "initrd=3: write the path of a file"),
        ({"cpu": "cortex-a510"}, "not one of cortex-a57"),
        ({"cpu_features": "sve"}, "there is no CPU feature 'sve'; there is ecv"),
        ({"seed": "x"}, "seed='x': 'x' is not a seed"),
        ({"counter_start": 1.5}, "counter_start=1.5: write a whole number"),
        ({"sinks": [3]}, "sinks: 3 cannot be called"),
        ({"script": 3}, "script=3: write the path of a file"),
        ({"image": 3}, "image=3: write a path, or the name of a bundled guest"),
        ({"quantum_ns": 1}, "quantum_ns=1: a time slice of 1 ns is too short"),
        ({"engine": "fast"}, "engine='fast': 'fast' is not one of auto, native, portable"),
    ],
)
def test_an_argument_that_cannot_be_used_says_what_to_write(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Machine(**{"image": "hello", **arguments})  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_limits_and_marks_may_be_texts() -> None:
    with Machine("vtimer-tick") as guest:
        assert guest.run_until(ns="1us") is None and guest.ns == 1_000
        assert guest.run_until(insns="2k") is None and guest.insns == 2_000
        assert guest.run_until(pc="main") is None
        assert guest.symbols is not None
        main = guest.board.vcpus[0].context.pc
        assert guest.symbols.lookup(main) == "main"
        assert (
            guest.run_until(pc="main+0x8") is None and guest.board.vcpus[0].context.pc == main + 8
        )
        assert guest.run_until(pc=f"{main + 12:#x}") is None
        assert guest.run(max_time_ns="1ms").verdict == "limit" and guest.ns == 1_000_000
        assert guest.run(timeout_s="1m").verdict == "pass"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pc": "mian"}, "mian: the guest has no such symbol; did you mean main?"),
        ({"pc": 1.5}, "pc=1.5: write an address or the name of a function"),
        ({"ns": "soon"}, "ns='soon'"),
        ({"ns": -1}, "ns=-1"),
        ({"insns": "x"}, "insns='x'"),
        ({"console": 3}, "console=3: write the text to wait for"),
        ({"timeout_s": "never"}, "timeout_s='never'"),
        ({"timeout_s": -1}, "timeout_s=-1"),
    ],
)
def test_a_mark_that_cannot_be_used_says_what_to_write(
    arguments: dict[str, object], message: str
) -> None:
    with Machine("hello") as guest, pytest.raises(UserError) as caught:
        guest.run_until(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda machine: machine.explain(27, vcpu="0"), "vcpu='0': write a whole number"),
        (lambda machine: machine.console.expect(5), "5 is no text; write a str or bytes"),
        (
            lambda machine: machine.console.expect("x", "5s"),
            "timeout_ns='5s': write a number of ns",
        ),
        (lambda machine: machine.console.send(5), "5 is no text; write a str or bytes"),
        (lambda machine: machine.console.feed(5), "5 is no text; write a str or bytes"),
        (
            lambda machine: Script.from_pairs(["ab"]),
            "'ab' is not a pair; write (text to wait for, text to send)",
        ),
        (lambda machine: Script.from_pairs([(b"a", b"b")]), "is not a pair"),
        (lambda machine: Script.from_pairs([("a",)]), "('a',) is not a pair"),
        (lambda machine: machine.run_until(pc=-4), "pc=-4: an address has 64 bits"),
        (lambda machine: machine.run_until(pc=1 << 70), "an address has 64 bits"),
        (lambda machine: Machine("hello", sinks=None), "sinks=None: write a list of sinks, [sink]"),  # type: ignore[arg-type]
        (
            lambda machine: Machine("hello", counter_start=-1),
            "counter_start=-1: a counter has 64 bits",
        ),
        (lambda machine: migrate_test("hello", None), "at_ns=None: write when the guest moves"),  # type: ignore[arg-type]
        (lambda machine: migrate_test("hello", "soon"), "at_ns='soon': 'soon' is not a time"),
    ],
)
def test_other_calls_say_what_to_write(call: Callable[[Machine], object], message: str) -> None:
    with Machine("console-echo") as guest:
        with pytest.raises(UserError) as caught:
            call(guest)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_input_may_be_text() -> None:
    with Machine("console-echo") as guest:
        guest.console.feed("hello\nquit\n")
        assert guest.run().verdict == "pass"


@pytest.mark.parametrize("part", ["", "uart", "console", "vm"])
def test_a_saved_state_of_another_version_is_refused(part: str) -> None:
    with Machine("hello") as saved, Machine("hello") as other:
        saved.run(max_insns=100)
        state = saved.state()
        versioned = state["parts"][part] if part else state
        versioned["version"] = 99
        with pytest.raises(UserError, match=r"has version 99, and this armvirt loads version \d"):
            other.load(state)
