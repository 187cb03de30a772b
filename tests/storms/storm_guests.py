"""Guests that keep the emulator busy, each in its own way: interrupt storms, ping-pong, slow
instructions, long work at EL2.

None of them ends by itself. A storm is a few instructions in a loop, written with the assembler of
the engine's tests; `STORMS` has them by name, with the options that `armvirt run` needs. X19 to X28
are the loops' own; handlers use X0 to X5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from asm import NE, XZR, Asm
from elf_builder import TEXT, Load, elf

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.its import COMMAND_SIZE, encode_command

GICD, GICC, ITS, GICR, UART, RTC = (
    0x0800_0000,
    0x0801_0000,
    0x0808_0000,
    0x080A_0000,
    0x0900_0000,
    0x0901_0000,
)
SGI_FRAME, REDISTRIBUTOR = 0x1_0000, 0x2_0000
RAM = 0x4000_0000
TABLES, QUEUE, BUFFER = 0x4800_0000, 0x4900_0000, 0x4A00_0000  # in 512 MiB of RAM
CPU_ON, CPU_OFF, AFFINITY_INFO, CPU_SUSPEND = 0xC400_0003, 0x8400_0002, 0xC400_0004, 0xC400_0001
PSCI_VERSION, SYSTEM_RESET, TRNG_RND = 0x8400_0000, 0x8400_0009, 0xC400_0053
PMR, IGRPEN0, IGRPEN1, CTLR, SGI1R, DIR, IAR0, EOIR0, IAR1, EOIR1 = (
    ICC_REGISTERS[f"ICC_{name}_EL1"]
    for name in (
        "PMR",
        "IGRPEN0",
        "IGRPEN1",
        "CTLR",
        "SGI1R",
        "DIR",
        "IAR0",
        "EOIR0",
        "IAR1",
        "EOIR1",
    )
)
QUEUE_BYTES = 1 << 20


class Storm(NamedTuple):
    """``build`` writes the program behind its vectors; ``options`` are for ``armvirt run``.
    ``data`` is what lies in memory beside it: (address, bytes)."""

    what: str
    build: Callable[[Program], None]
    options: tuple[str, ...] = ()
    data: Callable[[], list[tuple[int, bytes]]] = list

    def image(self) -> bytes:
        """The guest as an ELF file."""
        program = Program()
        self.build(program)
        loads = [Load(address=TEXT, data=program.finished())]
        loads += [Load(address=address, data=data) for address, data in self.data()]
        return elf(loads, entry=TEXT)


class Program(Asm):
    """Vectors, then what `Storm.build` adds. IRQ goes to ``irq``, FIQ to ``fiq``, a synchronous
    exception to ``sync``: handlers that the program does not write acknowledge and end the
    interrupt, and step over the instruction."""

    def __init__(self) -> None:
        super().__init__(TEXT)
        self.b("start")
        self.vectors(lambda a, offset: a.b(("sync", "irq", "fiq", "sync")[offset // 128 % 4]))
        self.label("start")
        self.set_vectors()
        self._labels = 0

    def finished(self) -> bytes:
        for name in ("irq", "fiq"):
            if name not in self.labels:
                self.label(name)
                self.mrs(0, IAR1 if name == "irq" else IAR0)
                self.msr(EOIR1 if name == "irq" else EOIR0, 0)
                self.eret()
        if "sync" not in self.labels:
            self.label("sync")
            self.mrs(0, "ELR_EL1")
            self.add_imm(0, 0, 4)
            self.msr("ELR_EL1", 0)
            self.eret()
        return self.code()

    def new_label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def forever(self, *steps: Callable[[], None]) -> None:
        """The steps again and again."""
        top = self.new_label()
        self.label(top)
        for step in steps:
            step()
        self.b(top)

    def times(self, count: int, register: int, body: Callable[[], None]) -> None:
        top = self.new_label()
        self.mov(register, count)
        self.label(top)
        body()
        self.subs_imm(register, register, 1)
        self.b_cond(NE, top)

    def store(self, address: int, value: int, size: int = 4) -> None:
        """A constant to an address, by X9 and X10."""
        self.mov(9, address)
        self.mov(10, value)
        (self.str_w if size == 4 else self.str_)(10, 9)

    def gic(
        self, groups: int = 0x13, private: int = 0xFFFF_FFFF, group1: int = 0xFFFF_FFFF
    ) -> None:
        """Everything enabled, in group 1, on the CPU that executes this (of the first 8)."""
        self.store(GICD, groups)
        self.mrs(9, "MPIDR_EL1")
        self.movz(10, 0xFF)
        self.and_(9, 9, 10)
        self.word(0xD36F_BC00 | 9 << 5 | 9)  # LSL X9, X9, #17
        self.mov(10, GICR + SGI_FRAME)
        self.add(9, 9, 10)
        self.mov(10, group1)
        self.str_w(10, 9, 0x80)
        self.mov(10, private)
        self.str_w(10, 9, 0x100)
        self.msr_const(PMR, 0xF0)
        self.msr_const(IGRPEN1, 1)
        self.msr_const(IGRPEN0, 1)

    def line_high(self, timer: str = "V") -> None:
        """A timer that has fired: its CVAL is 0."""
        self.msr_const(f"CNT{timer}_CVAL_EL0", 0)
        self.msr_const(f"CNT{timer}_CTL_EL0", 1)

    def call(self, function: int, *arguments: int) -> None:
        """HVC with constants."""
        for n, value in enumerate((function, *arguments)):
            self.mov(n, value)
        self.hvc()

    def cpu_on(self, cpu: int, label: str) -> None:
        self.mov(0, CPU_ON)
        self.mov(1, cpu)
        self.adr(2, label)
        self.movz(3, 0)
        self.hvc()

    def tick_soon(self, ticks: int = 64) -> None:
        self.mov(0, ticks)
        self.msr("CNTV_TVAL_EL0", 0)

    def on_irq(self, *steps: Callable[[], None]) -> None:
        """The handler: acknowledge, the steps, end."""
        self.label("irq")
        self.mrs(4, IAR1)
        for step in steps:
            step()
        self.msr(EOIR1, 4)
        self.eret()


Build = Callable[[Program], None]
STORMS: dict[str, Storm] = {}


def storm(
    what: str, *options: str, data: Callable[[], list[tuple[int, bytes]]] = list
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        STORMS[build.__name__.replace("_", "-")] = Storm(what, build, options, data)
        return build

    return add


def loops(name: str, what: str, body: Build, *options: str) -> None:
    """A storm that does one thing again and again."""

    def build(a: Program) -> None:
        a.forever(lambda: body(a))

    STORMS[name] = Storm(what, build, options)


# Interrupts


@storm("the virtual timer's line stays high: CVAL is never moved")
def timer_level(a: Program) -> None:
    a.gic()
    a.line_high()
    a.daifclr(2)
    a.forever(a.wfi)


@storm("both timers' lines stay high")
def timers_both(a: Program) -> None:
    a.gic()
    a.line_high("V")
    a.line_high("P")
    a.daifclr(2)
    a.forever(a.nop)


@storm("the virtual timer's line stays high, on a host with VHE", "--vhe")
def timer_level_vhe(a: Program) -> None:
    timer_level(a)


@storm("a GICv2 guest with a timer whose line stays high", "--gic", "2")
def timer_level_v2(a: Program) -> None:
    a.store(GICD, 1)
    a.store(GICD + 0x100, 0xFFFF_FFFF)
    a.store(GICC + 4, 0xF0)
    a.store(GICC, 1)
    a.line_high()
    a.mov(20, GICC)
    a.daifclr(2)
    a.forever(a.wfi)
    a.label("irq")
    a.ldr_w(0, 20, 0xC)
    a.str_w(0, 20, 0x10)
    a.eret()


@storm("WFI falls through: a masked interrupt is pending")
def wfi_falls_through(a: Program) -> None:
    a.gic()
    a.line_high()
    a.forever(a.wfi)


@storm("the handler sets the timer to the next microsecond")
def timer_rearmed(a: Program) -> None:
    a.gic()
    a.tick_soon()
    a.msr_const("CNTV_CTL_EL0", 1)
    a.daifclr(2)
    a.forever(a.nop, a.nop)
    a.on_irq(a.tick_soon)


@storm("the handler sets the timer to the next microsecond, and the guest sleeps between")
def timer_naps(a: Program) -> None:
    a.gic()
    a.tick_soon()
    a.msr_const("CNTV_CTL_EL0", 1)
    a.daifclr(2)
    a.forever(a.wfi)
    a.on_irq(a.tick_soon)


@storm("two CPUs sleep between ticks of a microsecond", "--cpus", "2")
def timer_naps_smp(a: Program) -> None:
    a.cpu_on(1, "each")
    a.label("each")
    a.set_vectors()
    timer_naps(a)


@storm("the physical timer, emulated, at each microsecond")
def ptimer_rearmed(a: Program) -> None:
    a.gic()
    a.msr_const("CNTP_TVAL_EL0", 64)
    a.msr_const("CNTP_CTL_EL0", 1)
    a.daifclr(2)
    a.forever(a.wfi)
    a.on_irq(lambda: a.mov(0, 64), lambda: a.msr("CNTP_TVAL_EL0", 0))


@storm("idle for ever: a timer of a second, whose handler sets it again")
def idle_seconds(a: Program) -> None:
    a.gic()
    a.tick_soon(62_500_000)
    a.msr_const("CNTV_CTL_EL0", 1)
    a.daifclr(2)
    a.forever(a.wfi)
    a.on_irq(lambda: a.tick_soon(62_500_000))


@storm("an SGI to itself, at once again")
def sgi_self(a: Program) -> None:
    a.gic()
    a.daifclr(2)
    a.mov(20, 1)
    a.forever(lambda: a.msr(SGI1R, 20))


@storm("four CPUs send SGIs to all others", "--cpus", "4")
def sgi_broadcast(a: Program) -> None:
    for cpu in (1, 2, 3):
        a.cpu_on(cpu, "each")
    a.label("each")
    a.set_vectors()
    a.gic()
    a.daifclr(2)
    a.mov(20, 1 << 40)
    a.forever(lambda: a.msr(SGI1R, 20))


@storm("two CPUs answer each SGI by an SGI", "--cpus", "2")
def sgi_ping_pong(a: Program) -> None:
    a.cpu_on(1, "each")
    a.label("each")
    a.set_vectors()
    a.gic()
    a.mov(20, 1 << 40)
    a.daifclr(2)
    a.msr(SGI1R, 20)
    a.forever(a.wfi)
    a.on_irq(lambda: a.msr(SGI1R, 20))


@storm("an FIQ whose line stays high")
def fiq_level(a: Program) -> None:
    a.gic(group1=0)
    a.line_high()
    a.daifclr(3)
    a.forever(a.nop)


def spis_on(a: Program) -> None:
    a.gic()
    for n in range(1, 7):
        a.store(GICD + 0x80 + 4 * n, 0xFFFF_FFFF)
        a.store(GICD + 0x100 + 4 * n, 0xFFFF_FFFF)


@storm("192 SPIs are made pending, and one list register takes them", "--list-registers", "1")
def spi_overflow(a: Program) -> None:
    spis_on(a)
    a.daifclr(2)
    a.mov(20, GICD + 0x200)
    a.mov(21, 0xFFFF_FFFF)
    a.forever(lambda: [a.str_w(21, 20, 4 * n) for n in range(1, 7)] and None)


@storm("an SPI made pending by its own handler, ended by DIR")
def spi_dir(a: Program) -> None:
    spis_on(a)
    a.msr_const(CTLR, 2)
    a.mov(20, GICD + 0x200)
    a.mov(21, 1)
    a.daifclr(2)
    a.str_w(21, 20, 8)
    a.forever(a.nop)
    a.on_irq(lambda: a.str_w(21, 20, 8), lambda: a.msr(EOIR1, 4), lambda: a.msr(DIR, 4))


@storm("the UART's transmit interrupt, level, never cleared")
def uart_irq(a: Program) -> None:
    spis_on(a)
    a.store(GICD + 0xC08, 0)  # level
    a.store(UART + 0x38, 1 << 5)
    a.store(UART, 0x41)
    a.daifclr(2)
    a.forever(a.wfi)


loops("iar-spurious", "reads of ICC_IAR1_EL1 with nothing pending", lambda a: a.mrs(0, IAR1))


# Waiting


@storm("the event stream wakes WFE")
def wfe_stream(a: Program) -> None:
    a.msr_const("CNTKCTL_EL1", 1 << 2 | 4 << 4)
    a.forever(a.wfe)


@storm("two CPUs send each other events", "--cpus", "2")
def wfe_ping_pong(a: Program) -> None:
    a.cpu_on(1, "each")
    a.label("each")
    a.forever(lambda: a.word(0xD503_209F), a.wfe)  # SEV


@storm("SEVL, then WFE, as a spin lock does")
def sevl_wfe(a: Program) -> None:
    a.forever(lambda: a.word(0xD503_20BF), a.wfe, lambda: a.add_imm(1, 1, 1))


@storm("WFIT with a microsecond", "--cpu-features", "wfxt")
def wfit(a: Program) -> None:
    a.forever(
        lambda: a.mrs(0, "CNTVCT_EL0"), lambda: a.add_imm(0, 0, 64), lambda: a.word(0xD503_1020)
    )


@storm("WFET with a microsecond", "--cpu-features", "wfxt")
def wfet(a: Program) -> None:
    a.forever(
        lambda: a.mrs(0, "CNTVCT_EL0"), lambda: a.add_imm(0, 0, 64), lambda: a.word(0xD503_1000)
    )


@storm("eight CPUs yield to each other", "--cpus", "8")
def yield_smp(a: Program) -> None:
    for cpu in range(1, 8):
        a.cpu_on(cpu, "each")
    a.label("each")
    a.forever(a.yield_, lambda: a.add_imm(1, 1, 1))


@storm("CPU_SUSPEND while an interrupt is pending")
def psci_suspend(a: Program) -> None:
    a.gic()
    a.line_high()
    a.forever(lambda: a.call(CPU_SUSPEND, 0, 0, 0))


@storm("one CPU switches another on, which switches itself off", "--cpus", "2")
def psci_on_off(a: Program) -> None:
    a.forever(lambda: a.cpu_on(1, "other"))
    a.label("other")
    a.call(CPU_OFF)


@storm("polls AFFINITY_INFO of a CPU that counts", "--cpus", "2")
def psci_poll(a: Program) -> None:
    a.cpu_on(1, "other")
    a.forever(lambda: a.call(AFFINITY_INFO, 1, 0))
    a.label("other")
    a.forever(lambda: a.add_imm(1, 1, 1))


@storm("asks for a reset at once")
def psci_reset(a: Program) -> None:
    a.call(SYSTEM_RESET)
    a.forever(a.nop)


# Hypercalls and traps

loops("hvc-version", "PSCI_VERSION", lambda a: a.call(PSCI_VERSION))
loops("hvc-unknown", "HVC #1, which is UNDEFINED", lambda a: a.hvc(1))
loops("hvc-trng", "random numbers by TRNG", lambda a: a.call(TRNG_RND, 192))
loops("smc-undefined", "SMC, which is UNDEFINED", lambda a: a.smc())
loops(
    "id-registers", "reads of ID registers, which EL2 traps", lambda a: a.mrs(0, "ID_AA64PFR0_EL1")
)
loops(
    "pmu-trap", "reads of a PMU register, which EL2 traps", lambda a: a.word(0xD53B_9C00)
)  # PMCR_EL0


@storm("four CPUs call the hypervisor", "--cpus", "4")
def hvc_smp(a: Program) -> None:
    for cpu in (1, 2, 3):
        a.cpu_on(cpu, "each")
    a.label("each")
    a.forever(lambda: a.call(PSCI_VERSION))


# Devices


def poll_register(address: int) -> Build:
    def build(a: Program) -> None:
        a.mov(20, address)
        a.forever(lambda: a.ldr_w(0, 20))

    return build


for _name, _what, _address in (
    ("mmio-uart", "the UART's flag register", UART + 0x18),
    ("mmio-rtc", "the clock chip", RTC),
    ("mmio-gicd", "GICD_ISPENDR1", GICD + 0x204),
    ("mmio-gicr", "GICR_ISPENDR0", GICR + SGI_FRAME + 0x200),
    ("mmio-gits", "GITS_CREADR", ITS + 0x90),
    ("mmio-nobody", "an address where nobody answers", 0x0B00_0000),
):
    STORMS[_name] = Storm(f"polls {_what}", poll_register(_address))


@storm("prints without end")
def uart_flood(a: Program) -> None:
    a.mov(20, UART)
    a.mov(21, 0x41)
    a.forever(lambda: a.str_w(21, 20))


@storm("switches the distributor on and off with 192 SPIs pending")
def gicd_ctlr(a: Program) -> None:
    spis_on(a)
    for n in range(1, 7):
        a.store(GICD + 0x200 + 4 * n, 0xFFFF_FFFF)
    a.mov(20, GICD)
    a.mov(21, 0x13)
    a.forever(lambda: a.str_w(XZR, 20), lambda: a.str_w(21, 20))


@storm("routes and unroutes SPIs", "--cpus", "8")
def gicd_irouter(a: Program) -> None:
    spis_on(a)
    a.mov(20, GICD + 0x6100)
    a.mov(21, 1)
    a.forever(lambda: a.str_(XZR, 20), lambda: a.str_(21, 20))


@storm("loads of pairs from a device: no syndrome says what they want")
def mmio_no_syndrome(a: Program) -> None:
    a.mov(20, UART)
    a.forever(lambda: a.word(0xA940_0680))  # LDP X0, X1, [X20]


# Maintenance and slow instructions

loops("tlbi-all", "TLBI VMALLE1IS", lambda a: a.sys("TLBI VMALLE1IS"))
loops("ic-iallu", "IC IALLU", lambda a: a.sys("IC IALLU"))


@storm("four CPUs send TLBI to each other", "--cpus", "4")
def tlbi_smp(a: Program) -> None:
    for cpu in (1, 2, 3):
        a.cpu_on(cpu, "each")
    a.label("each")
    a.forever(lambda: a.sys("TLBI VMALLE1IS"), lambda: a.sys("TLBI VAE1IS", 20))


@storm("IC IVAU of its own code", "--cpus", "2")
def ic_ivau(a: Program) -> None:
    a.adr(20, "start")
    a.forever(lambda: a.sys("IC IVAU", 20))


@storm("DC CVAU and DC CIVAC")
def dc_clean(a: Program) -> None:
    a.adr(20, "start")
    a.forever(lambda: a.sys("DC CVAU", 20), lambda: a.sys("DC CIVAC", 20))


@storm("a function that is written anew before each call")
def self_modifying(a: Program) -> None:
    a.adr(20, "code")
    a.mov(21, 0xD65F_03C0)
    a.forever(
        lambda: a.str_w(21, 20),
        a.dsb,
        lambda: a.sys("IC IVAU", 20),
        a.dsb,
        a.isb,
        lambda: a.blr(20),
    )
    a.align(4096)
    a.label("code")
    a.ret()


@storm("stores in the page of the code that executes")
def store_beside_code(a: Program) -> None:
    a.adr(20, "word")
    a.forever(lambda: a.str_(20, 20))
    a.align(8)
    a.label("word")
    a.word(0, 0)


def stride(a: Program, first: int, size: int, step: int, write: bool) -> None:
    """Through memory in steps, again and again."""

    def walk() -> None:
        a.mov(20, first)
        a.mov(22, step)
        a.times(
            size // step,
            21,
            lambda: ((a.str_ if write else a.ldr)(20, 20), a.add(20, 20, 22)) and None,
        )

    a.forever(walk)


@storm("a TLB miss at each load")
def tlb_misses(a: Program) -> None:
    stride(a, RAM + (128 << 20), 256 << 20, 4096 * 17, False)


@storm("a page of RAM for the first time at each store", "--mem", "8G")
def fresh_pages(a: Program) -> None:
    stride(a, RAM + (128 << 20), 1 << 30, 4096, True)


@storm(
    "2 MiB of RAM for the first time at each load, for the digest to look through",
    "--mem",
    "200G",
    "--trace-hash",
)
def sparse_ram(a: Program) -> None:
    stride(a, RAM + (128 << 20), 190 << 30, 2 << 20, False)


@storm("exclusives that fail")
def exclusive(a: Program) -> None:
    a.mov(20, BUFFER)
    a.forever(lambda: a.ldxr(1, 20), a.clrex, lambda: a.stxr(2, 1, 20))


@storm("the counters")
def counters(a: Program) -> None:
    a.forever(lambda: a.mrs(0, "CNTVCT_EL0"), lambda: a.mrs(1, "CNTPCT_EL0"))


@storm("writes of CNTV_CVAL_EL0")
def timer_writes(a: Program) -> None:
    a.forever(lambda: a.msr("CNTV_CVAL_EL0", 20), lambda: a.add_imm(20, 20, 1))


@storm("no exit ever: additions")
def spinning(a: Program) -> None:
    a.forever(lambda: a.add_imm(1, 1, 1), lambda: a.add_imm(2, 2, 1))


@storm("two CPUs that branch to themselves, one with a timer", "--cpus", "2")
def branch_to_itself(a: Program) -> None:
    a.cpu_on(1, "other")
    timer_rearmed(a)
    a.label("other")
    a.forever()


# Exceptions at EL1

loops("svc", "SVC at EL1", lambda a: (a.svc(), a.nop()) and None)
loops("undefined", "an UNDEFINED instruction", lambda a: a.udf())
loops("brk", "BRK", lambda a: a.brk())
loops("hlt", "HLT without semihosting", lambda a: a.hlt(0xF000))


@storm("data aborts: stage 1 maps nothing there")
def data_abort(a: Program) -> None:
    a.mov(20, 1 << 45)
    a.forever(lambda: a.ldr(0, 20))


@storm("branches to a misaligned PC")
def pc_alignment(a: Program) -> None:
    a.adr(20, "again")
    a.add_imm(21, 20, 2)
    a.label("again")
    a.br(21)
    a.label("sync")
    a.msr("ELR_EL1", 20)
    a.eret()


@storm("illegal exception returns")
def illegal_return(a: Program) -> None:
    a.adr(20, "again")
    a.label("again")
    a.msr("ELR_EL1", 20)
    a.msr_const("SPSR_EL1", 1 << 20 | 5)
    a.eret()
    a.label("sync")
    a.msr_const("SPSR_EL1", 0x3C5)
    a.msr("ELR_EL1", 20)
    a.eret()


@storm("EL0 that comes back by SVC")
def el0_svc(a: Program) -> None:
    a.label("again")
    a.drop_to("user", 0)
    a.label("user")
    a.svc()
    a.label("sync")
    a.b("again")


# The ITS


def lpis_on(a: Program, table: int = TABLES) -> None:
    """Tables of LPIs, devices and collections, and an empty queue of 1 MiB."""
    a.gic()
    a.store(GICR + 0x70, table | 15, 8)
    a.store(GICR + 0x78, table + 0x10_0000, 8)
    a.store(GICR, 1)
    a.store(ITS + 0x100, 1 << 63 | table + 0x20_0000 | 7, 8)  # 65,536 devices
    a.store(ITS + 0x108, 1 << 63 | table + 0x30_0000 | 7, 8)
    a.store(ITS + 0x80, 1 << 63 | QUEUE | 0xFF, 8)
    a.store(ITS, 1)


def its_queue(a: Program, commands: int, once: int = 0) -> None:
    """Execute ``once`` commands at the start of the queue, then the rest of ``commands`` again and
    again."""
    lpis_on(a)
    a.mov(20, ITS)
    if once:
        a.mov(21, once * COMMAND_SIZE)
        a.str_(21, 20, 0x88)
        wait_for_its(a)
    a.mov(22, commands * COMMAND_SIZE)
    a.mov(21, once * COMMAND_SIZE)

    def again() -> None:
        a.str_(22, 20, 0x88)
        wait_for_its(a)
        # The queue is a ring: go round through commands that do nothing.
        a.str_(21, 20, 0x88)
        wait_for_its(a, 21)

    a.forever(again)


def wait_for_its(a: Program, register: int | None = None) -> None:
    top = a.new_label()
    a.label(top)
    a.ldr(0, 20, 0x90)
    a.ldr(1, 20, 0x88)
    a.subs(0, 0, 1)
    a.cbnz(0, top)


def queue_of(*commands: bytes) -> list[tuple[int, bytes]]:
    """A queue that begins with these commands and goes on with SYNC."""
    joined = b"".join(commands)
    sync = encode_command("SYNC", rdbase=0)
    return [(QUEUE, joined + sync * ((QUEUE_BYTES - len(joined)) // COMMAND_SIZE))]


def many_events(count: int) -> list[bytes]:
    """One device with so many events, each an LPI of its own, in collection 0."""
    return [
        encode_command("MAPC", icid=0, rdbase=0, valid=1),
        encode_command("MAPD", device=0, size=15, itt=TABLES + 0x80_0000, valid=1),
        *(encode_command("MAPTI", device=0, event=n, intid=8192 + n, icid=0) for n in range(count)),
    ]


EVENTS = 20_000


def _its_storm(name: str, what: str, before: Callable[[], list[bytes]], again: Callable[[], list[bytes]],
               *options: str) -> None:  # fmt: skip
    def build(a: Program) -> None:
        its_queue(a, len(before()) + len(again()), len(before()))

    STORMS[name] = Storm(what, build, options, lambda: queue_of(*before(), *again()))


_its_storm(
    "its-devices",
    "32,700 devices without events, and a collection moved again and again",
    list,
    lambda: [
        *(encode_command("MAPD", device=n, size=0, itt=TABLES + 0x80_0000, valid=1) for n in range(32_000)),
        *(encode_command("MAPC", icid=1, rdbase=n & 1, valid=1) for n in range(700)),
    ],
    "--cpus", "2",
)  # fmt: skip
_its_storm(
    "its-mapc",
    "a collection of 20,000 LPIs is mapped to one CPU and the other",
    lambda: many_events(EVENTS),
    lambda: [encode_command("MAPC", icid=0, rdbase=n & 1, valid=1) for n in range(10_000)],
    "--cpus", "2",
)  # fmt: skip
_its_storm(
    "its-invall",
    "INVALL of 20,000 LPIs",
    lambda: many_events(EVENTS),
    lambda: [encode_command("INVALL", icid=0)] * 10_000,
)
_its_storm(
    "its-movall",
    "MOVALL of 20,000 LPIs to and fro",
    lambda: [encode_command("MAPC", icid=1, rdbase=1, valid=1), *many_events(EVENTS)],
    lambda: [encode_command("MOVALL", rdbase=n & 1, rdbase2=~n & 1) for n in range(10_000)],
    "--cpus", "2",
)  # fmt: skip
_its_storm(
    "its-mapd",
    "a device of 30,000 events is mapped, filled and unmapped",
    list,
    lambda: [*many_events(30_000), encode_command("MAPD", device=0, valid=0)],
)
_its_storm(
    "its-int",
    "20,000 LPIs become pending and are cleared",
    lambda: many_events(EVENTS // 2),
    lambda: [
        encode_command(name, device=0, event=n)
        for name in ("INT", "CLEAR")
        for n in range(EVENTS // 2)
    ],
)
_its_storm(
    "its-mapc-events",
    "32 devices share their LPIs: one collection of many more events than LPIs",
    lambda: [
        encode_command("MAPC", icid=0, rdbase=0, valid=1),
        *(encode_command("MAPD", device=d, size=9, itt=TABLES + 0x80_0000 + d * 8192, valid=1) for d in range(32)),
        *(
            encode_command("MAPTI", device=d, event=n, intid=8192 + n, icid=0)
            for d in range(32)
            for n in range(900)
        ),
    ],
    lambda: [encode_command("MAPC", icid=0, rdbase=n & 1, valid=1) for n in range(3000)],
    "--cpus", "2",
)  # fmt: skip


def _redistributor_storm(a: Program, write: Callable[[Program], None]) -> None:
    count = len(many_events(EVENTS))
    lpis_on(a)
    a.mov(20, ITS)
    a.mov(21, count * COMMAND_SIZE)
    a.str_(21, 20, 0x88)
    wait_for_its(a)
    a.mov(20, GICR)
    a.mov(21, 1)
    a.forever(lambda: write(a))


@storm("GICR_INVALLR of 20,000 LPIs", data=lambda: queue_of(*many_events(EVENTS)))
def gicr_invallr(a: Program) -> None:
    _redistributor_storm(a, lambda a: a.str_(XZR, 20, 0xB0))


@storm("LPIs are disabled and enabled, 20,000 of them", data=lambda: queue_of(*many_events(EVENTS)))
def gicr_enable_lpis(a: Program) -> None:
    _redistributor_storm(a, lambda a: (a.str_w(XZR, 20), a.str_w(21, 20)) and None)


@storm(
    "the distributor is switched off and on while 20,000 LPIs are pending",
    data=lambda: queue_of(*many_events(EVENTS), *_raise_all()),
)
def gicd_ctlr_lpis(a: Program) -> None:
    lpis_on(a)
    a.mov(20, ITS)
    a.mov(21, (len(many_events(EVENTS)) + len(_raise_all())) * COMMAND_SIZE)
    a.str_(21, 20, 0x88)
    wait_for_its(a)
    a.mov(20, GICD)
    a.mov(21, 0x13)
    a.forever(lambda: a.str_w(XZR, 20), lambda: a.str_w(21, 20))


def _raise_all() -> list[bytes]:
    return [encode_command("INT", device=0, event=n) for n in range(12_000)]


@storm(
    "12,000 LPIs that the guest takes one by one, and sends again",
    data=lambda: [*queue_of(*many_events(12_000), *_raise_all()), (TABLES, b"\xa1" * 57344)],
)
def lpi_flood(a: Program) -> None:
    a.daifclr(2)
    its_queue(a, len(many_events(12_000)) + len(_raise_all()), len(many_events(12_000)))


# Semihosting


def semihost(a: Program, operation: int, *block: int) -> None:
    """A call again and again; ``block`` are the words at X1."""
    for n, word in enumerate(block):
        a.store(BUFFER + 8 * n, word, 8)
    a.mov(21, operation)
    a.mov(22, BUFFER)
    a.forever(lambda: a.movr(0, 21), lambda: a.movr(1, 22), lambda: a.hlt(0xF000))


def _open_tt(a: Program) -> None:
    a.store(BUFFER, BUFFER + 0x100, 8)
    a.store(BUFFER + 8, 4, 8)
    a.store(BUFFER + 16, 3, 8)
    a.store(BUFFER + 0x100, int.from_bytes(b":tt\0", "little"))
    a.mov(0, 1)
    a.mov(1, BUFFER)
    a.hlt(0xF000)


@storm("SYS_WRITE of 1 MiB", "--semihosting")
def semihosting_write(a: Program) -> None:
    _open_tt(a)
    semihost(a, 5, 1, BUFFER + 0x1000, 1 << 20)


@storm("SYS_WRITE of 1 MiB, each byte an event in the trace", "--semihosting", "--trace-hash")
def semihosting_write_traced(a: Program) -> None:
    semihosting_write(a)


@storm(
    "SYS_WRITE0 of 64 KiB", "--semihosting", "--trace-hash", data=lambda: [(BUFFER, b"A" * 70_000)]
)
def semihosting_write0(a: Program) -> None:
    a.mov(21, 4)
    a.mov(22, BUFFER)
    a.forever(lambda: a.movr(0, 21), lambda: a.movr(1, 22), lambda: a.hlt(0xF000))


@storm("SYS_CLOCK", "--semihosting")
def semihosting_clock(a: Program) -> None:
    semihost(a, 0x10)


@storm("SYS_READ at the end of the input", "--semihosting")
def semihosting_read(a: Program) -> None:
    _open_tt(a)
    semihost(a, 6, 1, BUFFER + 0x1000, 1 << 20)
