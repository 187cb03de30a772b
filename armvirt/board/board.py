"""The board: the VMM of one virtual machine. A `BoardModel` describes the virtual machine.

The board creates the VM, memory slots, vCPUs, the GIC and the devices by the KVM API. The board
loads the guest by its boot protocol, and handles the exits that the hypervisor does not handle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from armvirt.arch.timer import NS_PER_SECOND
from armvirt.arch.translation import PAGE_SIZE
from armvirt.board import boot
from armvirt.board.boards import BOARDS
from armvirt.board.boot import Loaded
from armvirt.board.bus import MmioBus
from armvirt.board.checks import check
from armvirt.board.config import BoardConfig, Region
from armvirt.board.console import Console
from armvirt.board.devices.device import MmioDevice, Receiver, Wired
from armvirt.board.devices.pl031 import EPOCH
from armvirt.board.slot import Slot, Surroundings, Wire
from armvirt.board.tree import user_tree
from armvirt.board.tree.nodes import BoardTree
from armvirt.hyp.kvm import (
    COUNTER_START,
    MEM_READONLY,
    PVTIME_IPA,
    EventBus,
    HostConfig,
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
from armvirt.state import State, Stateful, check_versions, checked, load_states, states_of
from armvirt.units import human_size

if TYPE_CHECKING:
    from armvirt.board.semihosting import Exit, Semihosting
    from armvirt.board.tree.fdt import Node

SLOT_RAM, SLOT_ROM, SLOT_PVTIME = 0, 1, 2
SEMIHOSTING_INPUT_NS = 10_000
SEMIHOSTING_STACK = 1 << 20  # bytes at the end of RAM
STATE_VERSION = 2
PVTIME_SIZE = 64  # bytes of the stolen time of one CPU (Arm DEN 0057)


class Board:
    """A virtual machine on the KVM API: memory, vCPUs, interrupt controller, devices, and a loaded
    guest. `run` runs the virtual machine. ``event`` is the event that ended the last run; None if
    there was no such event, or after `take_event` has returned the event.

    ``loaded`` is the list of the loaded files: first the image and then the ROM, or only one of
    them. The first CPU starts in the last file of this list. ``devices`` has the devices by name.
    ``receiver`` is the device that receives console input. ``its`` is None if there is no ITS.
    """

    def __init__(self, config: BoardConfig, bus: EventBus, console: Console) -> None:
        self.config, self.console = config, console
        self.model = BOARDS[config.board]
        self.memmap = self.model.memmap
        check(config, self.model)
        self.date_at_start = EPOCH if config.rtc_base is None else config.rtc_base
        self.loaded = self._load_guest()
        self._initrd = (
            boot.load_initrd(config.initrd, config.memory) if config.initrd is not None else b""
        )
        self._user_tree = user_tree.load_user_tree(config.dtb) if config.dtb is not None else None
        host = HostConfig(
            engine=config.engine, cpu=config.cpu, frequency_hz=config.cntfrq,
            counter_start=COUNTER_START if config.counter_start is None else config.counter_start,
            list_registers=config.list_registers, priority_bits=config.priority_bits,
            cpu_features=config.cpu_features, vhe=config.vhe, pcpus=config.pcpus, quantum_ns=config.quantum_ns,
            skip=config.skip,
        )  # fmt: skip
        self.kvm = Kvm(host, bus=bus, wall_clock_start=self.date_at_start * NS_PER_SECOND)
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
        self._slots = [slot for slot in self.model.slots() if slot.present(config)]
        self.devices = {slot.name: self._create_device(slot) for slot in self._slots}
        uart = self.devices["uart"]
        assert isinstance(uart, Receiver)
        self.receiver = uart
        console.receivers.append(self.receiver.poll_input)
        console.attach(self.kvm.host.bus, self.vm.timers, self.kvm.host.stop)
        self._semihosting = self._create_semihosting() if config.semihosting else {}
        for vcpu in self.vcpus:
            vcpu.exit_handler = self._exit
        self.tree = self._place()
        self._boot()

    def __repr__(self) -> str:
        config = self.config
        return f"<Board {config.board}: GICv{config.gic}, {config.cpus} CPUs, {human_size(config.memory)} of RAM>"

    # -- creation --

    def _create_semihosting(self) -> dict[int, Semihosting]:
        # Imported here to keep the start-up time short, because few guests use semihosting.
        from armvirt.board.semihosting import Heap, Semihosting
        from armvirt.board.semihosting_host import VcpuMemory

        stack = self.ram_end - SEMIHOSTING_STACK
        heap = Heap(self.heap_start, stack, self.ram_end, stack)
        return {
            v.id: Semihosting(
                VcpuMemory(v, self.vm, self.console, self.date_at_start, self.command_line, heap)
            )
            for v in self.vcpus
        }

    def _create_device(self, slot: Slot) -> MmioDevice:
        """Make the device that ``slot`` describes, and put the device on the bus. ``slot`` is a row
        of the board's list of devices."""

        def line(level: int) -> None:
            self.vm.irq_line(self.memmap.INTIDS[slot.name], bool(level))

        def spi(intid: int, level: int) -> None:
            self.vm.irq_line(intid, bool(level))

        by = Surroundings(line, self.vm.timers, self.console, spi, self.config, self.date_at_start)
        device = slot.make(by)
        self.mmio.add(*slot.region, device)
        return device

    def _load_guest(self) -> list[Loaded]:
        """Load the image, if the configuration has an image, and then the ROM, if the configuration
        has a ROM. The first CPU starts in the last of the returned files."""
        config = self.config
        loaded = []
        if config.image is not None:
            loaded.append(
                boot.load(config.image, self.memmap.RAM_BASE, config.memory, config.load_addr)
            )
        if config.bios is not None:
            loaded.append(boot.load_bios(config.bios, self.memmap.ROM, self.memmap.RAM_BASE))
        return loaded

    @property
    def entered(self) -> Loaded:
        """The file in which the first CPU starts: the ROM, or the image if there is no ROM."""
        return self.loaded[-1]

    def _create_memory(self) -> None:
        self.ram = HostMemory(self.config.memory)
        self.vm.set_user_memory_region(SLOT_RAM, self.memmap.RAM_BASE, self.ram)
        if self.config.bios is not None:
            self.rom = HostMemory(self.memmap.FLASH.size)
            self.vm.set_user_memory_region(SLOT_ROM, self.memmap.FLASH.base, self.rom, MEM_READONLY)
        self.pvtime = HostMemory(self.memmap.PVTIME.size)
        self.vm.set_user_memory_region(SLOT_PVTIME, self.memmap.PVTIME.base, self.pvtime)

    def _place_stolen_time(self) -> None:
        """Set the address of each vCPU's stolen time. As in QEMU, the stolen time is in a memory
        slot of its own and not in RAM, because a guest may use all of RAM for other data."""
        for vcpu in self.vcpus:
            at = self.memmap.PVTIME.base + PVTIME_SIZE * vcpu.id
            vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, at)

    def _create_gic(self) -> VgicDevice:
        gic = self.vm.create_device("arm-vgic-v2" if self.config.gic == 2 else "arm-vgic-v3")
        gic.set_attr(VgicGroup.NR_IRQS, 0, self.memmap.NR_IRQS)
        for kind, frame in self._gic_frames():
            gic.set_attr(VgicGroup.ADDR, kind, frame.base)
        gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        self.its = None
        if self.config.its and self.config.gic == 3:
            its = self.its = self.vm.create_device("arm-its")
            its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, self.memmap.ITS.base)
            its.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        return gic

    def _gic_frames(self) -> list[tuple[VgicAddress, Region]]:
        at = self.memmap
        if self.config.gic == 2:
            return [(VgicAddress.V2_DIST, at.GICD), (VgicAddress.V2_CPU, at.GICC)]
        return [(VgicAddress.V3_DIST, at.GICD), (VgicAddress.V3_REDIST, at.GICR)]

    def wires(self) -> list[Wire]:
        """The interrupt lines of the devices. Each `Wire` has the device and the SPI of the
        line."""
        found = [(slot, self.devices[slot.name]) for slot in self._slots]
        return [
            Wire(slot.name, slot.part, device, self.memmap.INTIDS[slot.name])
            for slot, device in found
            if slot.name in self.memmap.INTIDS and isinstance(device, Wired)
        ]

    def _place(self) -> tuple[int, bytes, int | None]:
        """Choose the addresses of the device tree and the initrd. Return the address of the device
        tree, the blob of the device tree, and the address of the initrd (None if there is no
        initrd)."""
        blob = self._tree(None if not self._initrd else (0, len(self._initrd)))
        where = boot.place(
            self.loaded[0], len(blob), len(self._initrd), self.memmap.RAM_BASE, self.config.memory
        )
        if where.initrd is not None:
            blob = self._tree((where.initrd, where.initrd + len(self._initrd)))
        return where.dtb, blob, where.initrd

    def _tree(self, initrd: tuple[int, int] | None) -> bytes:
        config = self.config
        if self._user_tree is not None:
            ram = Region(self.memmap.RAM_BASE, config.memory)
            return user_tree.checked(user_tree.patch(self._user_tree, config.append, initrd, ram))
        board = BoardTree(
            self.memmap, [v.mpidr for v in self.vcpus], config.memory, config.cpu, config.gic, config.append, initrd,
            config.seed, config.kaslr_seed, config.its, self._nodes(in_gic=False), self._nodes(in_gic=True),
        )  # fmt: skip
        return user_tree.checked(self.model.tree(board))

    def _nodes(self, *, in_gic: bool) -> list[Node]:
        slots = [slot for slot in self._slots if slot.in_gic == in_gic]
        return [slot.node(slot) for slot in slots if slot.node is not None]

    def _boot(self) -> None:
        """Write the images, the device tree and the initrd to memory. Start the first CPU at the
        entry point. The other CPUs are off until a CPU calls CPU_ON for them."""
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
        self.receiver.poll_input()
        self._booted = True

    _booted = False

    def _clear_bss(self) -> None:
        """Write zeros to the bss of each segment (the part after the segment's data). This method
        skips pages that have only zeros, because a bss may be as large as RAM."""
        bss = sorted(
            (s.address + len(s.data), s.end) for loaded in self.loaded for s in loaded.segments
        )
        starts = [start for start, _ in bss]
        for at in [at for at, _ in self.vm.populated_pages()]:
            for start, end in bss[
                max(bisect_right(starts, at) - 1, 0) : bisect_left(starts, at + PAGE_SIZE)
            ]:
                first, last = max(at, start), min(at + PAGE_SIZE, end)
                if first < last:
                    self.vm.write_memory(first, bytes(last - first))

    def reset(self) -> None:
        """Do a SYSTEM_RESET: load the images again, and reset the devices and the GIC. Virtual time
        is not reset, and the rest of RAM keeps its contents. KvmError EBUSY while the machine runs,
        EBADF after `Machine.close`."""
        self.kvm.host.check_standing()
        self.event = None
        for vcpu in self.vcpus:
            vcpu.power_off()
        for device in self.devices.values():
            device.reset()
        for semihosting in self._semihosting.values():
            semihosting.reset()
        self.vm.reset()
        self._boot()

    # -- properties --

    @property
    def semihosting(self) -> list[Semihosting]:
        """The `Semihosting` object of each CPU; an empty list if semihosting is off."""
        return list(self._semihosting.values())

    @property
    def command_line(self) -> str:
        return " ".join(
            filter(None, (str(self.config.image or self.config.bios), self.config.append))
        )

    @property
    def ram_end(self) -> int:
        """The first address after RAM."""
        return self.memmap.RAM_BASE + self.config.memory

    @property
    def heap_start(self) -> int:
        """The start address of the heap of a semihosting guest."""
        return self.loaded[0].end + 0xFFFF & ~0xFFFF

    def in_memory(self, ipa: int, size: int) -> bool:
        return self.vm.has_memory(ipa, size)

    def dump_dtb(self) -> bytes:
        """Return the blob of the device tree that the guest gets."""
        return self.tree[1]

    @property
    def insns(self) -> int:
        """The number of instructions that all vCPUs have retired."""
        return self.kvm.host.insns

    def final_state(self, tick: Callable[[], None] = lambda: None) -> bytes:
        """Compute a SHA-256 digest of the registers of every CPU and of the contents of RAM. Pages
        that have only zeros are not part of the digest.

        RAM is searched in blocks of 2 MiB for pages that have other bytes than zero. ``tick`` is
        called before each block, about once per millisecond of host time. An exception of ``tick``
        ends the computation.
        """
        import hashlib
        import json

        registers = [v.context.registers() for v in self.vcpus]
        digest = hashlib.sha256(json.dumps(registers, sort_keys=True).encode())
        for at, page in self.vm.populated_pages(tick):
            digest.update(at.to_bytes(8, "little"))
            digest.update(page)
        return digest.digest()

    # -- running --

    def run(self, until: int, insns: int) -> Stop:
        """Run the machine until one of these conditions is true: (1) Virtual time is at least
        ``until``, a point in virtual time in ns. (2) All vCPUs together have retired at least
        ``insns`` instructions since the start of the machine. (3) An exit has set ``event``. (4) A
        stop is requested. (5) No vCPU can ever run."""
        if self.event is not None:
            return Stop.HANDLER  # an exception of a sink prevented `take_event`
        if self.console.fed:
            self.receiver.poll_input()
        return self.kvm.host.run(until, insns)

    def take_event(self) -> SystemEventExit | StuckExit | Exit | None:
        """Return the event that ended the last `run`, and set ``event`` to None. Return None if
        there was no event."""
        event, self.event = self.event, None
        return event

    def _exit(self, vcpu: Vcpu, exit: KvmExit) -> bool:
        if type(exit) is not MmioExit:
            return _EXITS[type(exit)](self, vcpu, exit)
        if exit.is_write:
            exit.abort = not self.mmio.write(exit.phys_addr, exit.size, exit.data)
            return False
        found = self.mmio.lookup(exit.phys_addr, exit.size)
        if found is None:
            exit.abort = True
        else:
            device, offset = found
            exit.data, exit.stable = device.read(offset, exit.size), offset in device.stable_reads
        return False

    def _end(self, vcpu: Vcpu, exit: SystemEventExit | StuckExit) -> bool:
        if isinstance(exit, SystemEventExit) and exit.kind == "wakeup":
            vcpu.set_mp_state(MpState.RUNNABLE)  # the vCPU was restored as SUSPENDED
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

    @property
    def own_parts(self) -> Mapping[str, Stateful]:
        """The objects of the VMM that have a saved state, by name: the devices, the console, and
        the semihosting of each vCPU."""
        calls = {f"semihosting{n}": each for n, each in self._semihosting.items()}
        return {**self.devices, "console": self.console, **calls}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The objects that have a saved state, by name: the VM, and then the objects of the VMM.
        `load` restores them in this order."""
        return {"vm": self.vm, **self.own_parts}

    def state(self) -> State:
        """Return the saved state. It has the state of the VM and the states of the objects in
        `own_parts`. It does not have the contents of memory. The state of the VM includes the clock
        of the emulated host."""
        return {"version": STATE_VERSION, "parts": states_of(self.parts)}

    def load(self, state: State) -> None:
        """Restore the state that `state` returned. StateError if the state has another version than
        this code writes, or if another board has saved the state. After a StateError the board is
        unchanged."""
        parts = checked(state, "the board", STATE_VERSION)["parts"]
        check_versions(parts, states_of(self.own_parts), "the board")
        load_states(self.parts, parts, "the board")  # the VM is first, and checks its own versions
        self.event = None


#: The handlers of the exits that the hypervisor does not handle.
_EXITS: dict[type, Callable[[Board, Vcpu, Any], bool]] = {
    SystemEventExit: Board._end,
    StuckExit: Board._end,
    SemihostingExit: Board._semihosting_call,
}
