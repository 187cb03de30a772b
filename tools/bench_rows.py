"""The rows of `make bench`: the guests, and the commands that run a guest under armvirt and QEMU."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GUESTS = ROOT / "armvirt" / "guests"
FETCHED = ROOT / ".cache" / "guests"
QEMU = "qemu-system-aarch64"
MACHINE = "-M virt,gic-version=3,its=on -cpu cortex-a72 -nographic -m 512M".split()
ICOUNT = "-icount shift=0,sleep=off".split()
OUR_ARGUMENTS = "--gic 3 --cpu cortex-a72 --mem 512M".split()


class Guest(NamedTuple):
    """A guest that both programs run. A run counts only if the console output contains ``says``.

    If ``rom`` is true, ``image`` is firmware for the address 0. ``script`` is a file with the
    console input. ``qemu_append`` is the kernel command line under QEMU (None: ``append``). If
    there is a guest ``beside``, armvirt runs this guest too, and QEMU does not run: the comparison
    is between the two guests.
    """

    image: Path
    says: bytes = b"VERDICT: PASS"
    initrd: Path | None = None
    append: str = ""
    cpus: int = 1
    beside: Guest | None = None
    qemu_append: str | None = None
    rom: bool = False
    script: Path | None = None

    @property
    def files(self) -> list[Path]:
        return [self.image] if self.initrd is None else [self.image, self.initrd]


class Command(NamedTuple):
    """A program with its arguments. A run counts only if the output contains ``says``. ``script``
    is a file with the input for a program that has no option for such a file."""

    words: list[str]
    says: bytes
    script: Path | None = None


def our_command(guest: Guest) -> Command:
    """The command that runs ``guest`` under armvirt."""
    image = ["--bios", str(guest.image)] if guest.rom else [str(guest.image)]
    more = [] if guest.initrd is None else ["--initrd", str(guest.initrd)]
    more += ["--append", guest.append] if guest.append else []
    more += ["--script", str(guest.script)] if guest.script is not None else []
    words = [sys.executable, "-m", "armvirt", "run", *image, *OUR_ARGUMENTS]
    return Command([*words, "--cpus", str(guest.cpus), *more], guest.says)


def qemu_command(guest: Guest, icount: bool = True) -> Command:
    """The command that runs ``guest`` under QEMU, with 1 ns per instruction if ``icount`` is
    true."""
    append = guest.append if guest.qemu_append is None else guest.qemu_append
    image = ["-bios" if guest.rom else "-kernel", str(guest.image)]
    more = [] if guest.initrd is None else ["-initrd", str(guest.initrd)]
    more += ["-append", append] if append else []
    words = [QEMU, *MACHINE, *(ICOUNT if icount else []), "-smp", str(guest.cpus), *image, *more]
    return Command(words, guest.says, guest.script)


def commands(guest: Guest, plain: bool = False) -> list[Command]:
    """The commands of a row: armvirt, the program for comparison, and, if ``plain`` is true, QEMU
    without -icount."""
    if guest.beside is not None:
        return [our_command(guest), our_command(guest.beside)]
    both = [our_command(guest), qemu_command(guest)]
    return [*both, qemu_command(guest, icount=False)] if plain else both


HELLO = Guest(GUESTS / "hello.elf")
# Without KASLR, which would isolate page tables from EL0: both sides do the same work, and the row can be compared with
# what was measured before armvirt gave a kaslr-seed (QEMU has always given one).
LINUX = Guest(
    FETCHED / "Image",
    b"reboot: Power down",
    FETCHED / "initramfs.cpio",
    "console=ttyAMA0 nokaslr autorun",
)
UBOOT = Guest(
    FETCHED / "u-boot.bin", b"poweroff ...", rom=True, script=ROOT / "tools" / "bench_uboot.script"
)
SMP = Guest(GUESTS / "bench-smp8.elf")
LOCK = Guest(GUESTS / "bench-lock.elf", beside=Guest(GUESTS / "bench-lock.elf", append="plain"))
ACTIONS = Guest(GUESTS / "bench-actions.elf")


class Task(NamedTuple):
    """A row before the measurement. ``limit`` is the largest allowed ratio or, if ``unit`` is MB,
    the largest amount of memory; None: no limit.

    If ``unit`` is ns or us, ``times`` is the number of actions of the guest (``qemu_times`` under
    QEMU, if it is not 0), and the time of the guest ``start`` is subtracted. If ``plain`` is true,
    QEMU also runs without -icount.
    """

    name: str
    what: str
    guest: Guest
    limit: float | None = None
    unit: str = "s"
    times: int = 1
    start: Guest = HELLO
    qemu_times: int = 0
    plain: bool = False

    @property
    def is_of_one(self) -> bool:
        """Whether the row shows the time of one of many actions."""
        return self.unit in ("ns", "us")

    def guests(self) -> list[Guest]:
        """The guests that must run for this row."""
        return [self.guest, self.start] if self.is_of_one else [self.guest]


def action(
    name: str,
    what: str,
    times: int,
    *,
    qemu_times: int = 0,
    unit: str = "ns",
    cpus: int = 1,
    plain: bool = True,
) -> Task:
    """A row of the guest `bench-actions`, which repeats the action ``name``."""
    guest = ACTIONS._replace(
        append=f"{name} {times}",
        qemu_append=f"{name} {qemu_times}" if qemu_times else None,
        cpus=cpus,
    )
    start = ACTIONS._replace(append="nothing", cpus=cpus)
    return Task(name, what, guest, None, unit, times, start, qemu_times, plain)


def counted(name: str, what: str, image: str, limit: float | None, times: int) -> Task:
    """A row of a guest that has one action and its number in the code."""
    return Task(name, what, Guest(GUESTS / image), limit, "ns", times, plain=True)


TASKS = (
    Task("linux", "Linux to user space and power-off", LINUX, 1.8, plain=True),
    Task("linux4", "the same with 4 CPUs", LINUX._replace(cpus=4), plain=True),
    Task("uboot", "U-Boot to its prompt, sleep 2, poweroff", UBOOT, plain=True),
    Task(
        "reg",
        "300 million instructions in registers",
        Guest(GUESTS / "bench-reg.elf"),
        1.5,
        plain=True,
    ),
    Task("mem", "200 million loads and stores", Guest(GUESTS / "bench-mem.elf"), 2.0, plain=True),
    Task("hello", "hello, start to finish", HELLO, 3.0, plain=True),
    Task("rss", "hello, peak resident memory", HELLO, 120.0, "MB", plain=True),
    counted("sgi", "an SGI to itself, sent, taken and ended", "bench-sgi.elf", 15.0, 200_000),
    counted(
        "eoi", "acknowledge and end; 1/4 distributor store", "bench-gic-eoi.elf", None, 400_000
    ),
    counted("gicd", "a read of GICD_ISENABLER1", "bench-gicd.elf", None, 500_000),
    counted("lpi", "an LPI by INT: queue, acknowledge, end", "bench-lpi.elf", None, 30_000),
    action("mmio", "a read of the UART's flag register", 50_000, qemu_times=2_000_000),
    action("hypercall", "PSCI_VERSION by HVC", 30_000, qemu_times=2_000_000),
    action("svc", "SVC at EL1, handler, ERET", 1_000_000),
    action("brk", "BRK at EL1, handler, ERET", 1_000_000),
    action("fault", "a data abort, whose handler maps a page", 100_000),
    action("walk", "a load from a page after TLBI", 1_000_000),
    action("patch", "an instruction patched, IC, DC, run", 50_000),
    action("pending", "an SPI of 4 pending: acknowledge, end", 30_000, qemu_times=300_000),
    action("storm", "an interrupt whose line stays high", 300_000),
    action(
        "shot-asleep", "a timer of 20 us, asleep in WFI", 200_000, qemu_times=20_000, plain=False
    ),
    action(
        "shot-polled",
        "a timer of 20 us, ISTATUS polled",
        20_000,
        qemu_times=2_000,
        plain=False,
    ),
    action("poll", "1 ms, the counter polled", 5_000, qemu_times=100, unit="us", plain=False),
    action("ipi", "an SGI to a CPU, its flag awaited", 1_000, qemu_times=20_000, unit="us", cpus=2),
    action(
        "hand-over",
        "a mutex to the next of 4 CPUs, in WFE",
        3_000,
        qemu_times=2_000_000,
        unit="us",
        cpus=4,
        plain=False,  # each WFE of a QEMU with several threads is a NOP: the CPUs spin
    ),
    Task("tick", "six minutes of 1 kHz ticks, asleep", Guest(GUESTS / "bench-tick.elf"), 0.25),
    Task("smp8", "3.2e9 instructions: 8 CPUs, and 1 CPU", SMP._replace(cpus=8, beside=SMP), 1.3),
    Task("lock", "a free lock: SEVL and WFE, and without", LOCK, 1.1, "ns", 2_000_000),
)


def missing(task: Task) -> str | None:
    """The reason why this row cannot be measured on this host; None if it can be measured."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    absent = [path for path in task.guest.files if not path.exists()]
    if not absent:
        return None
    cure = "; run make guests" if FETCHED in absent[0].parents else ""
    return f"{absent[0].relative_to(ROOT)} is missing{cure}"
