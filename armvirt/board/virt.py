"""The board: QEMU's ``virt`` machine, built on the KVM API.

It creates the VM, memory slots, vCPUs, the GIC and the devices, loads the guest by its boot
protocol, and takes the exits that EL2 does not finish.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.board import boot, memmap
from armvirt.board.boot import Loaded
from armvirt.board.bus import MmioBus
from armvirt.board.config import BoardConfig, check
from armvirt.board.console import Console
from armvirt.board.devices.device import Wire
from armvirt.board.devices.gicv2m import GicV2m
from armvirt.board.devices.pl011 import Pl011
from armvirt.board.devices.pl031 import EPOCH, SECOND, Pl031
from armvirt.board.devices.rom import Rom
from armvirt.board.sizes import human
from armvirt.board.tree import dtb
from armvirt.hyp.kvm import (
    COUNTER_START,
    MEM_READONLY,
    PVTIME_IPA,
    EventBus,
    HostMemory,
    Kvm,
    MmioExit,
    MpState,
    SemihostingExit,
    Start,
    Stop,
    StuckExit,
    SystemEventExit,
    Vcpu,
    VcpuGroup,
    VgicAddress,
    VgicCtrl,
    VgicDevice,
    VgicGroup,
)
from armvirt.hyp.kvm import Exit as KvmExit

if TYPE_CHECKING:
    from armvirt.board.semihosting import Exit, Heap, Semihosting

SLOT_RAM, SLOT_ROM, SLOT_PVTIME = 0, 1, 2
PAGE = 4096
SEMIHOSTING_INPUT_NS = 10_000
_GIC_FRAMES = {
    2: ((VgicAddress.V2_DIST, memmap.GICD), (VgicAddress.V2_CPU, memmap.GICC)),
    3: ((VgicAddress.V3_DIST, memmap.GICD), (VgicAddress.V3_REDIST, memmap.GICR)),
}


class _VcpuMemory:
    """What semihosting needs, seen from the calling vCPU."""

    def __init__(self, board: VirtBoard, vcpu: Vcpu) -> None:
        self.board, self.vcpu = board, vcpu

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        pieces = []
        while size:
            count = min(size, 0x1000 - (address & 0xFFF))
            ipa = self.vcpu.translate(address)
            if ipa is None or not self.board.in_memory(ipa, count):
                from armvirt.board.semihosting import BadAddressError

                raise BadAddressError(f"no memory at {address:#x}")
            pieces.append((ipa, count))
            address, size = address + count, size - count
        return pieces

    def read_memory(self, address: int, size: int) -> bytes:
        return b"".join(
            self.board.vm.read_memory(ipa, count) for ipa, count in self._pieces(address, size)
        )

    def write_memory(self, address: int, data: bytes) -> None:
        done = 0
        for ipa, count in self._pieces(address, len(data)):
            self.board.vm.write_memory(ipa, data[done : done + count])
            done += count

    def write_console(self, data: bytes) -> None:
        for byte in data:
            self.board.console.transmit(byte)

    def read_console(self) -> int | None:
        return self.board.console.receive()

    @property
    def input_closed(self) -> bool:
        return self.board.console.closed

    @property
    def now(self) -> int:
        return self.board.vm.timers.now

    @property
    def date(self) -> int:
        return self.board.date_at_start + self.now // SECOND

    @property
    def command_line(self) -> str:
        return self.board.command_line

    @property
    def heap(self) -> Heap:
        from armvirt.board.semihosting import Heap

        ram_end = memmap.RAM_BASE + self.board.config.memory
        return Heap(self.board.heap_start, ram_end - (1 << 20), ram_end, ram_end - (1 << 20))


class VirtBoard:
    """The machine. ``run`` drives it; what ended it is in ``event`` until
    `take_event` takes it."""

    def __init__(self, config: BoardConfig, bus: EventBus, console: Console) -> None:
        self.config, self.bus, self.console = config, bus, console
        check(config)
        self.date_at_start = EPOCH if config.rtc_base is None else config.rtc_base
        self.loaded = self._load_guest()
        self._initrd = (
            boot.load_initrd(config.initrd, config.memory) if config.initrd is not None else b""
        )
        self._user_tree = dtb.load_user_tree(config.dtb) if config.dtb is not None else None
        self.kvm = Kvm(
            engine=config.engine, cpu=config.cpu, frequency_hz=config.cntfrq, bus=bus,
            list_registers=config.list_registers, priority_bits=config.priority_bits,
            pcpus=config.pcpus, quantum_ns=config.quantum_ns,
            vhe=config.vhe, cpu_features=config.cpu_features,
            wall_clock_start=self.date_at_start * SECOND,
            counter_start=COUNTER_START if config.counter_start is None else config.counter_start,
        )  # fmt: skip
        start = self.kvm.host.pe.timer.counter.start
        virtual = 0 if config.cntvoff is None else (start - config.cntvoff) % (1 << 64)
        self.vm = self.kvm.create_vm(virtual_start=virtual, trng_seed=config.seed)
        self.vm.semihosting = config.semihosting
        self.event: SystemEventExit | StuckExit | Exit | None = None
        self._create_memory()
        self.vcpus = [self.vm.create_vcpu(n) for n in range(config.cpus)]
        self._place_stolen_time()
        self.gic = self._create_gic()
        self.mmio = MmioBus()
        self.uart = Pl011(
            self._line(memmap.UART_INTID), self.vm.timers, console.transmit, console.receive
        )
        self.rtc = Pl031(self._line(memmap.RTC_INTID), self.vm.timers, epoch=self.date_at_start)
        self.mmio.add(*memmap.UART, self.uart)
        self.mmio.add(*memmap.RTC, self.rtc)
        if config.gic == 2:
            self.mmio.add(
                *memmap.GICV2M, GicV2m(lambda intid, level: self.vm.irq_line(intid, bool(level)))
            )
        if config.bios is not None:
            self.mmio.add(*memmap.FLASH, Rom())
        console.receivers.append(self.uart.poll_input)
        console.attach(self.vm.timers, self.kvm.host.stop)
        self._semihosting = self._create_semihosting() if config.semihosting else {}
        for vcpu in self.vcpus:
            vcpu.exit_handler = self._exit
        self.tree = self._place()
        self._boot()

    def __repr__(self) -> str:
        config = self.config
        return f"<VirtBoard: GICv{config.gic}, {config.cpus} CPUs, {human(config.memory)} of RAM>"

    # -- creation --

    def _create_semihosting(self) -> dict[int, Semihosting]:
        from armvirt.board.semihosting import Semihosting  # few guests ask for it: start-up time

        return {v.id: Semihosting(_VcpuMemory(self, v)) for v in self.vcpus}

    def _load_guest(self) -> list[Loaded]:
        """The ROM and the image; which of them is entered comes last."""
        config = self.config
        loaded = []
        if config.image is not None:
            loaded.append(boot.load(config.image, memmap.RAM_BASE, config.memory, config.load_addr))
        if config.bios is not None:
            loaded.append(boot.load_bios(config.bios))
        return loaded

    @property
    def entered(self) -> Loaded:
        """What the first CPU starts in: the ROM if there is one."""
        return self.loaded[-1]

    def _create_memory(self) -> None:
        self.ram = HostMemory(self.config.memory)
        self.vm.set_user_memory_region(SLOT_RAM, memmap.RAM_BASE, self.ram)
        if self.config.bios is not None:
            self.rom = HostMemory(memmap.FLASH.size)
            self.vm.set_user_memory_region(SLOT_ROM, memmap.FLASH.base, self.rom, MEM_READONLY)
        self.pvtime = HostMemory(memmap.PVTIME.size)
        self.vm.set_user_memory_region(SLOT_PVTIME, memmap.PVTIME.base, self.pvtime)

    def _place_stolen_time(self) -> None:
        """A memory slot of its own, where QEMU has it: it is no RAM that a guest would put other
        things into."""
        for vcpu in self.vcpus:
            at = memmap.PVTIME.base + memmap.PVTIME_STRIDE * vcpu.id
            vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, at)

    def _create_gic(self) -> VgicDevice:
        gic = self.vm.create_device("arm-vgic-v2" if self.config.gic == 2 else "arm-vgic-v3")
        gic.set_attr(VgicGroup.NR_IRQS, 0, memmap.NR_IRQS)
        for kind, frame in _GIC_FRAMES[self.config.gic]:
            gic.set_attr(VgicGroup.ADDR, kind, frame.base)
        gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        self.its = None
        if self.config.its and self.config.gic == 3:
            its = self.its = self.vm.create_device("arm-its")
            its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, memmap.ITS.base)
            its.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        return gic

    def wires(self) -> list[Wire]:
        """The devices that drive an SPI each, for people who ask why it does not come, or does not
        stop."""
        return [
            Wire("UART", "PL011", self.uart, memmap.UART_INTID),
            Wire("RTC", "PL031", self.rtc, memmap.RTC_INTID),
        ]

    def _line(self, intid: int) -> Callable[[int], None]:
        return lambda level: self.vm.irq_line(intid, bool(level))

    def _place(self) -> tuple[int, bytes, int | None]:
        """(address of the device tree, the tree, address of the initrd)."""
        blob = self._tree(None if not self._initrd else (0, len(self._initrd)))
        where = boot.place(
            self.loaded[0], len(blob), len(self._initrd), memmap.RAM_BASE, self.config.memory
        )
        if where.initrd is not None:
            blob = self._tree((where.initrd, where.initrd + len(self._initrd)))
        return where.dtb, blob, where.initrd

    def _tree(self, initrd: tuple[int, int] | None) -> bytes:
        config = self.config
        if self._user_tree is not None:
            return dtb.checked(dtb.patch(self._user_tree, config.append, initrd, config.memory))
        tree = dtb.build(
            dtb.BoardTree(
                [v.mpidr for v in self.vcpus],
                config.memory,
                config.gic,
                config.cpu,
                config.append,
                initrd,
                seed=config.seed,
                kaslr_seed=config.kaslr_seed,
                its=config.its,
            )
        )
        return dtb.checked(tree)

    def _boot(self) -> None:
        """Put images, tree and initrd into memory and the first CPU at the entry; the others wait
        for CPU_ON."""
        at, blob, initrd = self.tree
        for loaded in self.loaded:
            for segment in loaded.segments:
                self.vm.write_memory(segment.address, segment.data)
        if self._booted:
            self._clear_bss()
        self.vm.write_memory(at, blob)
        if initrd is not None:
            self.vm.write_memory(initrd, self._initrd)
        for vcpu in self.vcpus:
            if vcpu.id == 0:
                vcpu.start(Start(self.entered.entry, at))
            else:
                vcpu.init(power_off=True)
        self.uart.poll_input()
        self._booted = True

    _booted = False

    def _clear_bss(self) -> None:
        """Zero what segments have beyond their data, where anything is there: a bss may be as large
        as RAM."""
        bss = sorted(
            (s.address + len(s.data), s.end) for loaded in self.loaded for s in loaded.segments
        )
        starts = [start for start, _ in bss]
        for at in [at for at, _ in self.vm.populated_pages()]:
            for start, end in bss[
                max(bisect_right(starts, at) - 1, 0) : bisect_left(starts, at + PAGE)
            ]:
                first, last = max(at, start), min(at + PAGE, end)
                if first < last:
                    self.vm.write_memory(first, bytes(last - first))

    def reset(self) -> None:
        """SYSTEM_RESET: images are reloaded, devices and GIC reset; time goes on, RAM keeps its
        contents.

        KvmError EBUSY while it runs, EBADF once it is closed."""
        self.kvm.host.check_standing()
        self.event = None
        for vcpu in self.vcpus:
            vcpu.power_off()
        for _, _, device in self.mmio.devices():
            device.reset()
        for semihosting in self._semihosting.values():
            semihosting.reset()
        self.vm.reset()
        self._boot()

    # -- what others ask --

    @property
    def semihosting(self) -> list[Semihosting]:
        """The semihosting of each CPU; none where the guest has none."""
        return list(self._semihosting.values())

    @property
    def command_line(self) -> str:
        return " ".join(
            filter(None, (str(self.config.image or self.config.bios), self.config.append))
        )

    @property
    def heap_start(self) -> int:
        return self.loaded[0].end + 0xFFFF & ~0xFFFF

    def in_memory(self, ipa: int, size: int) -> bool:
        return self.vm.has_memory(ipa, size)

    def dump_dtb(self) -> bytes:
        """The device tree that the guest gets."""
        return self.tree[1]

    @property
    def insns(self) -> int:
        """Instructions that all vCPUs have retired."""
        return self.kvm.host.insns

    def final_state(self, tick: Callable[[], None] = lambda: None) -> bytes:
        """The registers of every CPU by name and the contents of RAM, for a digest. Zero pages
        count as absent.

        ``tick`` is called before every 2 MiB, which take about a millisecond; it may raise to give
        up.
        """
        import hashlib
        import json

        registers = [v.context.engine.save() for v in self.vcpus]
        for saved in registers:
            for name in ("count", "last_vector_elr", "vector_faults", "event_cleared"):
                del saved[name]
        digest = hashlib.sha256(json.dumps(registers, sort_keys=True).encode())
        for at, page in self.vm.populated_pages(tick):
            digest.update(at.to_bytes(8, "little"))
            digest.update(page)
        return digest.digest()

    # -- running --

    def run(self, until: int, insns: int) -> Stop:
        """Drive the machine to ``until`` ns, to ``insns`` retired in all, to an ``event``, or to
        idleness."""
        if self.event is not None:
            return Stop.HANDLER  # of a run that a sink's exception ended before anybody took it
        if self.console.fed:
            self.uart.poll_input()
        return self.kvm.host.run(until, insns)

    def take_event(self) -> SystemEventExit | StuckExit | Exit | None:
        """What ended the last `run`, if anything did; once."""
        event, self.event = self.event, None
        return event

    def _exit(self, vcpu: Vcpu, exit: KvmExit) -> bool:
        return _EXITS[type(exit)](self, vcpu, exit)

    def _mmio(self, _vcpu: Vcpu, exit: MmioExit) -> bool:
        if exit.is_write:
            exit.abort = not self.mmio.write(exit.phys_addr, exit.size, exit.data)
            return False
        value = self.mmio.read(exit.phys_addr, exit.size)
        exit.abort, exit.data = value is None, value or 0
        return False

    def _end(self, vcpu: Vcpu, exit: SystemEventExit | StuckExit) -> bool:
        if isinstance(exit, SystemEventExit) and exit.kind == "wakeup":
            vcpu.set_mp_state(MpState.RUNNABLE)  # it was brought here asleep
            return False
        self.event = exit
        return True

    def _semihosting_call(self, vcpu: Vcpu, exit: SemihostingExit) -> bool:
        from armvirt.board.semihosting import Again, Exit, Wait

        outcome = self._semihosting[vcpu.id].call(exit.operation, exit.parameter)
        if isinstance(outcome, Exit):
            self.event = outcome
            return True
        if isinstance(outcome, Wait):
            exit.retry_at = self.vm.timers.now + SEMIHOSTING_INPUT_NS
            return False
        if isinstance(outcome, Again):
            exit.retry_at = self.vm.timers.now
            return False
        exit.result = outcome
        return False

    # -- state --

    def state(self) -> dict[str, object]:
        """Everything but memory: the host's clock, the VM, the devices."""
        return {
            "version": 1, "vm": self.vm.state(), "uart": self.uart.state(), "rtc": self.rtc.state(),
            "console": self.console.state(),
            "semihosting": [s.state() for s in self._semihosting.values()],
        }  # fmt: skip

    def load(self, state: dict[str, object]) -> None:
        self.event = None
        self.vm.load(state["vm"])  # type: ignore[arg-type]
        self.uart.load(state["uart"])  # type: ignore[arg-type]
        self.rtc.load(state["rtc"])  # type: ignore[arg-type]
        self.console.load(state["console"])  # type: ignore[arg-type]
        for semihosting, saved in zip(
            self._semihosting.values(), state["semihosting"], strict=True
        ):  # type: ignore
            semihosting.load(saved)


_EXITS: dict[type, Callable[[VirtBoard, Vcpu, KvmExit], bool]] = {
    MmioExit: VirtBoard._mmio,  # type: ignore[dict-item]
    SystemEventExit: VirtBoard._end,  # type: ignore[dict-item]
    StuckExit: VirtBoard._end,  # type: ignore[dict-item]
    SemihostingExit: VirtBoard._semihosting_call,  # type: ignore[dict-item]
}
