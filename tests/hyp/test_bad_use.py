"""Bad use of the API: every refused call raises its errno and leaves the VM unchanged.

One table for all public methods of Kvm, Vm, Vcpu and the devices. What is compared before and after
each call is everything: saved state, memory, slots and their logs, capabilities, routes, filters,
what waits to be answered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hyp_tools import DEVICE, GICD, GICR, RAM, RAM_SIZE, Asm, power_off

from armvirt.arch.encoding import sysreg
from armvirt.errors import KvmError
from armvirt.hyp.kvm import (
    IRQ_TYPE_CPU,
    IRQ_TYPE_PPI,
    IRQ_TYPE_SPI,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    PVTIME_IPA,
    SMCCC_FILTER,
    VM_SMCCC_CTRL,
    Cap,
    FilterAction,
    FilterRange,
    GsiRoute,
    HostMemory,
    InFlight,
    Kvm,
    MmioExit,
    Start,
    Vcpu,
    VcpuEvents,
    VcpuGroup,
    VcpuInit,
    VgicAddress,
    VgicCtrl,
    VgicDevice,
    VgicGroup,
    Vm,
    irq_line_word,
)
from armvirt.hyp.vgic.device.its import ItsDevice
from armvirt.hyp.vgic.distributor import Distributor

PAGE = 4096
CORE, SYSTEM = 0x6030_0000_0010_0000, 0x6030_0000_0013_0000
FIRMWARE, BITMAP, DEMUX = 0x6030_0000_0014_0000, 0x6030_0000_0016_0000, 0x6020_0000_0011_0000
ITS = 0x0900_0000
VTIMER, PTIMER = 0, 1
MASK64 = (1 << 64) - 1


class World:
    """A VM in one of `SITUATIONS`, and what belongs to it."""

    gic: VgicDevice
    its: ItsDevice

    def __init__(
        self, vcpus: int = 2, gic: str | None = None, *, initialized: bool = True, init: bool = True
    ) -> None:
        self.kvm = Kvm(pcpus=2)
        self.vm = self.kvm.create_vm()
        self.ram, self.logged, self.rom = (
            HostMemory(RAM_SIZE),
            HostMemory(130 * PAGE),
            HostMemory(PAGE),
        )
        self.vm.set_user_memory_region(0, RAM, self.ram)
        self.vm.set_user_memory_region(1, 0x5000_0000, self.logged, MEM_LOG_DIRTY_PAGES)
        self.vm.set_user_memory_region(2, 0x6000_0000, self.rom, MEM_READONLY)
        self.vm.write_memory(0x5000_0000 + 3 * PAGE, b"dirty")
        for n in range(vcpus):
            self.vm.create_vcpu(n)
        if gic is not None:
            self.gic = self.vm.create_device(gic)  # type: ignore[assignment]
            if initialized:
                place(self.gic, gic)
        if gic == "arm-vgic-v3":
            self.its = self.vm.create_device("arm-its")
            if initialized:
                self.its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)
                self.gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        for vcpu in self.vm.vcpus if init else ():
            vcpu.init(power_off=True)

    @property
    def vcpu(self) -> Vcpu:
        return self.vm.vcpu(0)

    def run(self) -> World:
        """vCPU 0 stands at an access that its VMM has answered."""
        a = Asm(RAM)
        a.mov(1, DEVICE)
        a.ldr(2, 1)
        power_off(a)
        self.vm.write_memory(RAM, a.code())
        self.vcpu.start(Start(RAM, 0))
        exit = self.vcpu.run()
        assert isinstance(exit, MmioExit)
        exit.data = 7
        return self

    def snapshot(self) -> dict[str, object]:
        """Everything that a call of the API could change."""
        vm, host = self.vm, self.kvm.host
        its = getattr(self, "its", None)
        return {
            "state": self.kvm.state(), "vms": len(self.kvm.vms),
            "host": [host.turn.index, host.driving, host.clock.now],
            "vcpus": [(v.id, v.state(), v.get_mp_state(), v.debug, v.sched.affinity, v.immediate_exit,
                       list(v.vmm.answers), v.vmm.abortable, v.device_irq_level, v.exit_handler) for v in vm.vcpus],
            "slots": [(s.slot, s.flags, s.ipa, s.size, id(s.memory), s.offset, s.dirty and s.dirty.bits())
                      for s in vm.mmu.slots.values()],
            "memory": [bytes(m.map[:]) for m in (self.ram, self.logged, self.rom)],
            "caps": (set(vm.caps._enabled), vm.mmu.manual_protect, vm.smccc.psci.suspend_enabled, vm.vcpu_features),
            "filter": list(vm.smccc.filter.ranges), "ioeventfds": list(vm.devices.ioeventfds._all),
            "routes": (vm._irqs._routes, {k: list(v) for k, v in vm._irqs._resamplers.items()}),
            "run": vm.has_run, "ppis": (list(vm.timer_data.ppi), vm.timer_data.ppis_immutable),
            "its": its and (its._its and its._its.base), "devices": len(vm._its_devices),
            "gic": vm.vgic and gic_state(vm.vgic.dist),
        }  # fmt: skip


def gic_state(dist: Distributor) -> tuple[object, ...]:
    place = dist.placement
    return dist.initialized, dist.ready, dist.nr_irqs, place.dist_base, place.cpu_base, list(place.regions)  # fmt: skip


def place(gic: VgicDevice, kind: str) -> None:
    gic.set_attr(VgicGroup.NR_IRQS, 0, 96)
    if kind == "arm-vgic-v2":
        gic.set_attr(VgicGroup.ADDR, VgicAddress.V2_DIST, GICD)
        gic.set_attr(VgicGroup.ADDR, VgicAddress.V2_CPU, GICD + 0x1_0000)
        gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        return
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)


SITUATIONS: dict[str, Callable[[], World]] = {
    "bare": lambda: World(0),
    "fresh vCPUs": lambda: World(init=False),
    "no GIC": World,
    "no GIC, run": lambda: World().run(),
    "new GICv3": lambda: World(gic="arm-vgic-v3", initialized=False),
    "GICv3": lambda: World(gic="arm-vgic-v3"),
    "GICv3, run": lambda: World(gic="arm-vgic-v3").run(),
    "new GICv2": lambda: World(gic="arm-vgic-v2", initialized=False),
    "GICv2": lambda: World(gic="arm-vgic-v2"),
    "one PPI for two timers": lambda: shared_ppi(),
    "overlapping frames": lambda: overlapping(),
}


def shared_ppi() -> World:
    world = World(gic="arm-vgic-v3")
    world.vcpu.set_device_attr(VcpuGroup.TIMER_CTRL, PTIMER, 27)
    return world


def overlapping() -> World:
    world = World(gic="arm-vgic-v2", initialized=False)
    for kind in (VgicAddress.V2_DIST, VgicAddress.V2_CPU):
        world.gic.set_attr(VgicGroup.ADDR, kind, GICD)
    return world


class Row(NamedTuple):
    """One bad call: the method it is of, where, how, and the errno."""

    method: str
    where: str
    call: Callable[[World], object]
    errno: str


def nothing() -> None: ...


def slot(*arguments: Any, **more: Any) -> Callable[[World], object]:
    return lambda w: w.vm.set_user_memory_region(
        *(a(w) if callable(a) else a for a in arguments), **more
    )


def one_page(w: World) -> HostMemory:
    return w.rom


def logged(w: World) -> HostMemory:
    return w.logged


def sysreg_id(*encoding: int) -> int:
    return SYSTEM | sysreg(*encoding)


ROWS = [
    # -- Vm: memory --
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0001, one_page), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0000, one_page, 4), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(32767, 0x7000_0000, one_page), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(-1, 0x7000_0000, one_page), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(1 << 16, 0x7000_0000, one_page), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0000, one_page, memory_size=2 * PAGE), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0000, one_page, memory_size=PAGE + 1), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0000, one_page, memory_size=-PAGE), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0x7000_0000, one_page, offset=8), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, -PAGE, one_page), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, (1 << 64) - PAGE, logged), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 1 << 40, one_page), "EFAULT"),
    Row("Vm.set_user_memory_region", "bare", slot(3, RAM + PAGE, one_page), "EEXIST"),
    Row("Vm.set_user_memory_region", "bare", slot(3, 0, None), "EINVAL"),
    Row("Vm.set_user_memory_region", "bare", slot(1, 0x5000_0000, None, 4), "EINVAL"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(1, RAM, logged, 1), "EEXIST"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(1, (1 << 40) - PAGE, logged, 1), "EFAULT"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(1, 0x5000_0000, one_page, 1), "EINVAL"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(1, 0x5000_0000, logged, 3), "EINVAL"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(1, 0x5000_0000, logged, 1, memory_size=PAGE), "EINVAL"),
    Row("Vm.set_user_memory_region", "no GIC, run", slot(3, 1 << 35, one_page), "EINVAL"),
    Row("Vm.get_dirty_log", "bare", lambda w: w.vm.get_dirty_log(0), "ENOENT"),
    Row("Vm.get_dirty_log", "bare", lambda w: w.vm.get_dirty_log(9), "ENOENT"),
    Row("Vm.get_dirty_log", "bare", lambda w: w.vm.get_dirty_log(32767), "EINVAL"),
    Row("Vm.get_dirty_log", "bare", lambda w: w.vm.get_dirty_log(-1), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(0, 0, 64, bytes(8)), "ENOENT"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(-1, 0, 64, bytes(8)), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(1, 1, 64, b"\xff" * 8), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(1, 0, 3, b"\xff" * 8), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(1, 0, 192, b"\xff" * 24), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(1, -64, 64, b"\xff" * 8), "EINVAL"),
    Row("Vm.clear_dirty_log", "bare", lambda w: w.vm.clear_dirty_log(1, 0, 64, b"\xff" * 7), "EFAULT"),
    Row("Vm.read_memory", "bare", lambda w: w.vm.read_memory(0x7000_0000, 1), "EFAULT"),
    Row("Vm.read_memory", "bare", lambda w: w.vm.read_memory(RAM + RAM_SIZE - 4, 8), "EFAULT"),
    Row("Vm.write_memory", "bare", lambda w: w.vm.write_memory(RAM + RAM_SIZE - 4, b"12345678"), "EFAULT"),
    Row("Vm.write_memory", "bare", lambda w: w.vm.write_memory(-4, b"12345678"), "EFAULT"),
    # -- Vm: what it is --
    Row("Vm.create_vcpu", "bare", lambda w: w.vm.create_vcpu(-1), "EINVAL"),
    Row("Vm.create_vcpu", "bare", lambda w: w.vm.create_vcpu(512), "EINVAL"),
    Row("Vm.create_vcpu", "no GIC", lambda w: w.vm.create_vcpu(1), "EEXIST"),
    Row("Vm.create_vcpu", "new GICv2", lambda w: w.vm.create_vcpu(8), "EINVAL"),
    Row("Vm.create_vcpu", "GICv3", lambda w: w.vm.create_vcpu(5), "EBUSY"),
    Row("Vm.vcpu", "no GIC", lambda w: w.vm.vcpu(5), "ENOENT"),
    Row("Vm.create_device", "bare", lambda w: w.vm.create_device("arm-vgic-v5"), "ENODEV"),
    Row("Vm.create_device", "bare", lambda w: w.vm.create_device("", test=True), "ENODEV"),
    Row("Vm.create_device", "GICv3", lambda w: w.vm.create_device("arm-vgic-v3"), "EEXIST"),
    Row("Vm.create_device", "GICv3", lambda w: w.vm.create_device("arm-vgic-v2"), "EEXIST"),
    Row("Vm.create_device", "no GIC, run", lambda w: w.vm.create_device("arm-vgic-v3"), "EBUSY"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(9999), "EINVAL"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(Cap.ONE_REG), "EINVAL"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(Cap.ARM_NISV_TO_USER, 0, 1), "EINVAL"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(Cap.ARM_SYSTEM_SUSPEND, 0, 1), "EINVAL"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 2), "EINVAL"),
    Row("Vm.enable_cap", "bare", lambda w: w.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 4), "EINVAL"),
    Row("Vm.has_device_attr", "bare", lambda w: w.vm.has_device_attr(0, 1), "ENXIO"),
    Row("Vm.set_device_attr", "bare", lambda w: w.vm.set_device_attr(1, 0, FilterRange(0x8400_0000, 1, 0)), "ENXIO"),
    *(Row("Vm.set_device_attr", where, lambda w, r=filter_: w.vm.set_device_attr(VM_SMCCC_CTRL, SMCCC_FILTER, r), errno)
      for where, filter_, errno in (
          ("bare", FilterRange(0x8400_0000, 1, 3), "EINVAL"), ("bare", FilterRange(0x8400_0000, 0, 1), "EINVAL"),
          ("bare", FilterRange(-1, 2, 1), "EINVAL"), ("bare", FilterRange(0x8000_0000, 1, 1), "EEXIST"),
          ("no GIC, run", FilterRange(0x8400_0000, 1, FilterAction.DENY), "EBUSY"))),
    Row("Vm.set_counter_offset", "no GIC, run", lambda w: w.vm.set_counter_offset(5, 1), "EINVAL"),
    # -- Vm: interrupts --
    Row("Vm.irq_line", "no GIC", lambda w: w.vm.irq_line(40, True), "ENXIO"),
    Row("Vm.irq_line", "new GICv3", lambda w: w.vm.irq_line(40, True), "EBUSY"),
    *(Row("Vm.irq_line", where, lambda w, i=intid, v=vcpu: w.vm.irq_line(i, True, v), "EINVAL")
      for where in ("GICv3", "new GICv2", "GICv2")
      for intid, vcpu in ((-1, None), (1020, None), (8192, None), (1 << 32, None), (20, None), (20, 5), (-1, 0))),
    Row("Vm.irq_line", "GICv3", lambda w: w.vm.irq_line(96, True), "EINVAL"),
    *(Row("Vm.irq_line_raw", where, lambda w, k=kind, n=number, v=vcpu: w.vm.irq_line_raw(irq_line_word(k, n, v), True),
          errno)
      for where, kind, number, vcpu, errno in (
          ("no GIC", IRQ_TYPE_SPI, 40, 0, "ENXIO"), ("no GIC", IRQ_TYPE_PPI, 20, 0, "ENXIO"),
          ("no GIC", IRQ_TYPE_CPU, 2, 0, "EINVAL"), ("no GIC", IRQ_TYPE_CPU, 0, 9, "EINVAL"),
          ("GICv3", IRQ_TYPE_CPU, 0, 0, "ENXIO"), ("GICv3", 3, 0, 0, "EINVAL"), ("no GIC", 7, 0, 0, "EINVAL"),
          ("GICv3", IRQ_TYPE_SPI, 31, 0, "EINVAL"), ("GICv3", IRQ_TYPE_SPI, 96, 0, "EINVAL"),
          ("GICv3", IRQ_TYPE_PPI, 15, 0, "EINVAL"), ("GICv3", IRQ_TYPE_PPI, 32, 0, "EINVAL"),
          ("GICv3", IRQ_TYPE_PPI, 20, 300, "EINVAL"), ("new GICv3", IRQ_TYPE_SPI, 40, 0, "EBUSY"),
          ("new GICv2", IRQ_TYPE_SPI, 1020, 0, "EINVAL"))),
    Row("Vm.signal_msi", "no GIC", lambda w: w.vm.signal_msi(ITS + 0x1_0040, 0, 0), "EINVAL"),
    Row("Vm.signal_msi", "GICv2", lambda w: w.vm.signal_msi(ITS + 0x1_0040, 0, 0), "ENODEV"),
    Row("Vm.signal_msi", "GICv3", lambda w: w.vm.signal_msi(ITS + 0x1_0040, 0), "EINVAL"),
    Row("Vm.signal_msi", "GICv3", lambda w: w.vm.signal_msi(ITS, 0, 0), "EINVAL"),
    *(Row("Vm.set_gsi_routing", "GICv3", lambda w, e=entries: w.vm.set_gsi_routing(e), "EINVAL")
      for entries in ([GsiRoute(0, 988)], [GsiRoute(0, -1)], [GsiRoute(0, 1, 1)], [GsiRoute(5, 1), GsiRoute(5, 2)],
                      [GsiRoute(4096, 1)], [GsiRoute(-1, 1)])),
    Row("Vm.irqfd", "no GIC", lambda w: w.vm.irqfd(1), "EAGAIN"),
    Row("Vm.irqfd", "new GICv3", lambda w: w.vm.irqfd(1, nothing), "EAGAIN"),
    *(Row("Vm.ioeventfd", "bare", lambda w, a=address, n=length, m=match: w.vm.ioeventfd(a, n, nothing, m), "EINVAL")
      for address, length, match in ((DEVICE, 3, None), (DEVICE, -1, None), (DEVICE, 0, 1), (MASK64, 4, None),
                                     (-1, 4, None))),
    Row("Vm.ioeventfd", "bare", lambda w: w.vm.ioeventfd(DEVICE, 4, nothing, deassign=True), "ENOENT"),
    # -- Vcpu --
    Row("Vcpu.vcpu_init", "fresh vCPUs", lambda w: w.vcpu.vcpu_init(VcpuInit(4)), "EINVAL"),
    Row("Vcpu.vcpu_init", "fresh vCPUs", lambda w: w.vcpu.vcpu_init(VcpuInit(5, 1 << 9)), "ENOENT"),
    Row("Vcpu.vcpu_init", "fresh vCPUs", lambda w: w.vcpu.vcpu_init(VcpuInit(5, 1 << 3)), "EINVAL"),
    Row("Vcpu.run", "fresh vCPUs", lambda w: w.vcpu.run(), "ENOEXEC"),
    Row("Vcpu.run", "new GICv3", lambda w: w.vcpu.run(), "ENXIO"),
    Row("Vcpu.run", "one PPI for two timers", lambda w: w.vcpu.run(), "EINVAL"),
    Row("Vcpu.run", "overlapping frames", lambda w: w.vcpu.run(), "EINVAL"),
    Row("Vcpu.get_one_reg", "fresh vCPUs", lambda w: w.vcpu.get_one_reg(CORE), "ENOEXEC"),
    Row("Vcpu.get_one_reg", "no GIC", lambda w: w.vcpu.get_one_reg(0), "ENOENT"),
    Row("Vcpu.get_one_reg", "no GIC", lambda w: w.vcpu.get_one_reg(CORE | 1), "ENOENT"),
    Row("Vcpu.get_reg_list", "fresh vCPUs", lambda w: w.vcpu.get_reg_list(), "ENOEXEC"),
    Row("Vcpu.set_one_reg", "fresh vCPUs", lambda w: w.vcpu.set_one_reg(CORE, 0), "ENOEXEC"),
    *(Row("Vcpu.set_one_reg", where, lambda w, r=register, v=value: w.vcpu.set_one_reg(r, v), errno)
      for where, register, value, errno in (
          ("no GIC", CORE | 1, 0, "ENOENT"), ("no GIC", CORE, 1 << 64, "EINVAL"), ("no GIC", CORE, -1, "EINVAL"),
          ("no GIC", CORE | 0x42, 0x3C9, "EINVAL"), ("no GIC", CORE | 0x42, 0x10, "EINVAL"),
          ("no GIC", sysreg_id(3, 0, 0, 0, 5), 7, "EINVAL"), ("no GIC", sysreg_id(3, 0, 0, 4, 0), 7, "EINVAL"),
          ("no GIC", FIRMWARE, 0x1_0009, "EINVAL"), ("no GIC", FIRMWARE | 1, 9, "EINVAL"),
          ("no GIC", BITMAP, 1 << 9, "EINVAL"), ("no GIC, run", BITMAP, 0, "EBUSY"), ("no GIC", DEMUX, 0, "EINVAL"))),
    Row("Vcpu.set_mp_state", "no GIC, run", lambda w: w.vcpu.set_mp_state(1), "EINVAL"),
    Row("Vcpu.set_mp_state", "no GIC, run", lambda w: w.vcpu.set_mp_state(-1), "EINVAL"),
    Row("Vcpu.get_vcpu_events", "fresh vCPUs", lambda w: w.vcpu.get_vcpu_events(), "ENOEXEC"),
    Row("Vcpu.set_vcpu_events", "fresh vCPUs", lambda w: w.vcpu.set_vcpu_events(VcpuEvents(True)), "ENOEXEC"),
    Row("Vcpu.set_vcpu_events", "no GIC", lambda w: w.vcpu.set_vcpu_events(VcpuEvents(True, True)), "EINVAL"),
    Row("Vcpu.set_vcpu_events", "no GIC", lambda w: w.vcpu.set_vcpu_events(VcpuEvents(True, ext_dabt_pending=True)),
        "EINVAL"),
    Row("Vcpu.in_flight", "fresh vCPUs", lambda w: w.vcpu.in_flight(), "ENOEXEC"),
    Row("Vcpu.resume", "fresh vCPUs", lambda w: w.vcpu.resume(InFlight(True, None, (0, 0, 0))), "ENOEXEC"),
    Row("Vcpu.set_guest_debug", "no GIC", lambda w: w.vcpu.set_guest_debug(1 << 17 | 1), "EINVAL"),
    Row("Vcpu.set_guest_debug", "no GIC", lambda w: w.vcpu.set_guest_debug(4), "EINVAL"),
    *(Row(f"Vcpu.{method}", "GICv3", lambda w, m=method, g=group, a=attr, r=rest: getattr(w.vcpu, m)(g, a, *r), "ENXIO")
      for method, rest in (("has_device_attr", ()), ("get_device_attr", ()), ("set_device_attr", (20,)))
      for group, attr in ((0, 0), (77, 0), (VcpuGroup.TIMER_CTRL, 4), (VcpuGroup.PVTIME_CTRL, 1))),
    *(Row("Vcpu.set_device_attr", where, lambda w, g=group, v=value: w.vcpu.set_device_attr(g, 0, v), errno)
      for where, group, value, errno in (
          ("no GIC", VcpuGroup.TIMER_CTRL, 27, "EINVAL"), ("GICv3", VcpuGroup.TIMER_CTRL, None, "EFAULT"),
          ("GICv3", VcpuGroup.TIMER_CTRL, 15, "EINVAL"), ("GICv3", VcpuGroup.TIMER_CTRL, 32, "EINVAL"),
          ("GICv3, run", VcpuGroup.TIMER_CTRL, 20, "EBUSY"), ("no GIC", VcpuGroup.PVTIME_CTRL, None, "EFAULT"),
          ("no GIC", VcpuGroup.PVTIME_CTRL, RAM + 8, "EINVAL"), ("no GIC", VcpuGroup.PVTIME_CTRL, 1 << 39, "EINVAL"),
          ("no GIC", VcpuGroup.PVTIME_CTRL, -64, "EINVAL"))),
    *(Row("Vcpu.set_affinity", "no GIC, run", lambda w, p=pes: w.vcpu.set_affinity(p), "EINVAL")
      for pes in ((), (2,), (0, 2), (-1,))),
    Row("Vcpu.pin", "no GIC, run", lambda w: w.vcpu.pin(2), "EINVAL"),
]  # fmt: skip

#: Attributes of the devices: where, device, group, attribute, value, errno; get is tried too where
#: the value is None.
DEVICE_ROWS = [
    *((where, "gic", group, 0, 0, "ENXIO") for where in ("GICv3", "GICv2") for group in (-1, 8, 9)),
    ("new GICv3", "gic", VgicGroup.ADDR, 0, GICD, "ENXIO"), ("new GICv3", "gic", VgicGroup.ADDR, 9, GICD, "ENXIO"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, GICD + 0x1000, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, 1 << 40, "E2BIG"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, -0x1_0000, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, (1 << 64) + GICD, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST, (1 << 40) - 0x2_0000, "E2BIG"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR + 1, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION, GICR, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION, 2 << 52 | GICR | 1 << 12, "EINVAL"),
    ("new GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION, 2 << 52 | GICR | 1, "EINVAL"),
    ("GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, GICD, "EEXIST"),
    ("GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION, 2 << 52 | GICR, "EINVAL"),
    ("GICv3", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, None, "EFAULT"),
    *(("new GICv3", "gic", VgicGroup.NR_IRQS, 0, n, "EINVAL") for n in (0, 32, 65, 1025, 1056, -32)),
    ("GICv3", "gic", VgicGroup.NR_IRQS, 0, 64, "EBUSY"),
    ("new GICv3", "gic", VgicGroup.DIST_REGS, 0, 0, "EBUSY"),
    ("new GICv3", "gic", VgicGroup.REDIST_REGS, 0, 0, "EBUSY"),
    ("GICv3", "gic", VgicGroup.REDIST_REGS, 9 << 32, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.DIST_REGS, 2, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.REDIST_REGS, 2, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.REDIST_REGS, 1 << 20, 0, "ENXIO"),
    ("GICv3", "gic", VgicGroup.CPU_SYSREGS, 0, 0, "ENXIO"),
    ("GICv3", "gic", VgicGroup.CPU_SYSREGS, 9 << 32, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.LEVEL_INFO, 1, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.LEVEL_INFO, 1 << 10, 0, "EINVAL"),
    ("GICv3", "gic", VgicGroup.CTRL, 7, None, "ENXIO"), ("new GICv3", "gic", VgicGroup.CTRL, 3, None, "EBUSY"),
    ("new GICv2", "gic", VgicGroup.ADDR, VgicAddress.V2_DIST, GICD + 0x800, "EINVAL"),
    ("new GICv2", "gic", VgicGroup.ADDR, VgicAddress.V2_CPU, (1 << 40) - 0x1000, "E2BIG"),
    ("new GICv2", "gic", VgicGroup.ADDR, VgicAddress.V3_DIST, GICD, "ENXIO"),
    ("new GICv2", "gic", VgicGroup.DIST_REGS, 9 << 32, 0, "EINVAL"),
    ("new GICv2", "gic", VgicGroup.CPU_REGS, 9 << 32, 0, "EINVAL"),
    ("GICv2", "gic", VgicGroup.ADDR, VgicAddress.V2_CPU, GICD, "EEXIST"),
    ("GICv2", "gic", VgicGroup.CTRL, 3, None, "ENXIO"),
    ("new GICv3", "its", VgicGroup.ADDR, VgicAddress.ITS, ITS + 0x1000, "EINVAL"),
    ("new GICv3", "its", VgicGroup.ADDR, VgicAddress.ITS, (1 << 40) - 0x1_0000, "E2BIG"),
    ("new GICv3", "its", VgicGroup.ADDR, VgicAddress.ITS, None, "EFAULT"),
    ("new GICv3", "its", VgicGroup.ADDR, VgicAddress.ITS, -0x1_0000, "EINVAL"),
    ("new GICv3", "its", VgicGroup.ADDR, 0, ITS, "ENODEV"),
    ("new GICv3", "its", VgicGroup.ITS_REGS, 0x80, 0, "ENXIO"),
    ("GICv3", "its", VgicGroup.ADDR, VgicAddress.ITS, ITS, "EEXIST"),
    ("GICv3", "its", VgicGroup.ITS_REGS, 0x81, 0, "EINVAL"), ("GICv3", "its", VgicGroup.NR_IRQS, 0, 0, "ENXIO"),
    ("GICv3", "its", VgicGroup.CTRL, 3, None, "ENXIO"),
]  # fmt: skip

for _where, _device, _group, _attr, _value, _errno in DEVICE_ROWS:
    _owner = "VgicDevice" if _device == "gic" else "ItsDevice"
    ROWS.append(
        Row(
            f"{_owner}.set_attr",
            _where,
            lambda w, d=_device, g=_group, a=_attr, v=_value: getattr(w, d).set_attr(g, a, v),
            _errno,
        )
    )
for _where, _device, _group, _attr, _errno in (
    ("GICv3", "gic", 9, 0, "ENXIO"), ("GICv3", "gic", VgicGroup.ADDR, 0, "ENXIO"),
    ("GICv3", "gic", VgicGroup.CTRL, 9, "ENXIO"),
    ("GICv3", "gic", VgicGroup.REDIST_REGS, 9 << 32, "EINVAL"), ("GICv3", "gic", VgicGroup.CPU_SYSREGS, 0, "ENXIO"),
    ("GICv2", "gic", VgicGroup.CPU_REGS, 9 << 32, "EINVAL"), ("GICv3", "its", VgicGroup.CTRL, 9, "ENXIO"),
    ("GICv3", "its", 77, 0, "ENXIO"),
):  # fmt: skip
    for _method in ("has_attr", "get_attr"):
        _owner = "VgicDevice" if _device == "gic" else "ItsDevice"
        ROWS.append(
            Row(
                f"{_owner}.{_method}",
                _where,
                lambda w, m=_method, d=_device, g=_group, a=_attr: getattr(getattr(w, d), m)(g, a),
                _errno,
            )
        )


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{n}-{row.method}-{row.where}-{row.errno}" for n, row in enumerate(ROWS)]
)
def test_a_refused_call_changes_nothing(row: Row) -> None:
    world = SITUATIONS[row.where]()
    before = world.snapshot()
    for _ in range(2):
        with pytest.raises(KvmError) as caught:
            row.call(world)
        assert caught.value.errno == row.errno, caught.value
        after = world.snapshot()
        assert [key for key in before if after[key] != before[key]] == []


#: Public methods that refuse nothing, or that are not for a VMM: what the hypervisor itself calls.
NO_ERRORS = {
    "Kvm": {"create_vm", "check_extension", "state", "load"},
    "Vm": {"check_extension", "preferred_target", "has_memory", "populated_pages", "reset", "state", "own_state",
           "load", "load_own", "check_shape", "irqfd_deassign", "why_idle", "diagnose", "compare"},
    "Vcpu": {"init", "start", "get_mp_state", "may_be_on", "translate"},
    "VgicDevice": set(), "ItsDevice": set(),
}  # fmt: skip
INTERNAL = {
    "Kvm": set(),
    "Vm": {"first_run", "vgic_of"},
    "Vcpu": {"power_off", "check_initialized", "set_line", "set_vgic", "load", "attach", "detach", "put",
             "request_stop", "wait", "wait_for_event", "runnable_interrupt", "next_rise", "stuck", "state",
             "load_state"},
    "VgicDevice": set(), "ItsDevice": {"connect"},
}  # fmt: skip


@pytest.mark.parametrize("owner", [Kvm, Vm, Vcpu, VgicDevice, ItsDevice])
def test_every_public_method_is_in_the_table(owner: type) -> None:
    name = owner.__name__
    methods = {n for n, _ in inspect.getmembers(owner, inspect.isfunction) if not n.startswith("_")}
    covered = {row.method.split(".")[1] for row in ROWS if row.method.startswith(f"{name}.")}
    assert methods == covered | NO_ERRORS[name] | INTERNAL[name]
    assert not covered & (NO_ERRORS[name] | INTERNAL[name])


def test_a_place_of_the_stolen_time_is_set_once() -> None:
    world = World()
    world.vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, RAM)
    before = world.snapshot()
    for place_ in (RAM, RAM + 64):
        with pytest.raises(KvmError, match="EEXIST"):
            world.vcpu.set_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA, place_)
    assert world.snapshot() == before


def test_a_second_ioeventfd() -> None:
    world = World(0)
    world.vm.ioeventfd(DEVICE, 4, nothing)
    before = world.snapshot()
    with pytest.raises(KvmError, match="EEXIST"):
        world.vm.ioeventfd(DEVICE, 4, nothing, 5)
    assert world.snapshot() == before


def test_other_features_than_before() -> None:
    world = World(init=False)
    world.vcpu.vcpu_init(VcpuInit(5, 1 << 2))
    before = world.snapshot()
    with pytest.raises(KvmError, match="EINVAL"):
        world.vm.vcpu(1).vcpu_init(VcpuInit(5))
    assert world.snapshot() == before


@pytest.mark.parametrize("change", ["vcpus", "pcpus", "vms", "gic"])
def test_state_of_another_shape_is_refused(change: str) -> None:
    """ValueError, for it is no ioctl: a host or VM that was built in another way."""
    world = World(gic="arm-vgic-v3").run()
    state = world.kvm.state()
    if change == "pcpus":  # nothing else differs
        other = Kvm(pcpus=1)
        vms = [other.create_vm()]
    else:
        other = Kvm(pcpus=2)
        vms = [other.create_vm() for _ in range(2 if change == "vms" else 1)]
    for vm in vms:
        for n in range(3 if change == "vcpus" else 2):
            vm.create_vcpu(n)
        if change != "gic":
            gic, its = vm.create_device("arm-vgic-v3"), vm.create_device("arm-its")
            place(gic, "arm-vgic-v3")
            its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)
            gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    before = other.state()
    with pytest.raises(ValueError, match="another shape"):
        other.load(state)
    if change != "vms":
        with pytest.raises(ValueError, match="another shape"):
            vms[0].load({**world.vm.own_state(), "host": world.kvm.host.state()})
    assert other.state() == before


def test_a_gicv2_for_too_many_vcpus() -> None:
    world = World(9)
    before = world.snapshot()
    for _ in range(2):
        with pytest.raises(KvmError, match="E2BIG"):
            world.vm.create_device("arm-vgic-v2")
    assert world.snapshot() == before


def test_a_run_that_is_refused_in_an_exit_handler() -> None:
    """EBUSY, and what goes on goes on: the handler's own answer is what the guest gets."""
    world = World()
    a = Asm(RAM)
    a.mov(1, DEVICE)
    a.ldr(2, 1)
    power_off(a)
    world.vm.write_memory(RAM, a.code())
    errnos = []

    def handler(vcpu: Vcpu, exit: object) -> bool:
        if isinstance(exit, MmioExit):
            before = world.snapshot()
            for call in (vcpu.run, world.kvm.host.run):
                with pytest.raises(KvmError) as caught:
                    call()
                errnos.append(caught.value.errno)
            assert world.snapshot() == before
            exit.data = 9
            return False
        return True

    world.vcpu.exit_handler = handler
    world.vcpu.start(Start(RAM, 0))
    world.kvm.host.run()
    assert errnos == ["EBUSY", "EBUSY"] and world.vcpu.context.x(2) == 9
