"""An ITS as a KVM device (Documentation/virt/kvm/devices/arm-vgic-its.rst, kvm/vgic/vgic-its.c).

The argument ``value`` and the errors have the same meaning as in `armvirt.hyp.vgic.device.gic`. The
modules with the registers, the commands and the tables are imported when they are used for the
first time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.gic import GITS_FRAME_SIZE, GITS_SIZE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device.attributes import (
    UNDEFINED_ADDRESS,
    AddrType,
    Ctrl,
    Group,
    check_range,
    check_value,
)
from armvirt.hyp.vgic.vgic import Vgic

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its

CONTROLS = (Ctrl.INIT, Ctrl.ITS_SAVE_TABLES, Ctrl.ITS_RESTORE_TABLES, Ctrl.ITS_CTRL_RESET)


class ItsDevice:
    """A KVM device of type KVM_DEV_TYPE_ARM_VGIC_ITS. A VM may have several ITSs.

    ``find_vgic()`` returns the vGIC of the VM, or None before user space creates the vGIC. The
    device calls ``on_placed()`` when user space sets the address of the ITS. ``ipa_bits`` is the
    size of the IPA space in address bits.
    """

    def __init__(
        self,
        find_vgic: Callable[[], Vgic | None],
        on_placed: Callable[[], None] = lambda: None,
        ipa_bits: int = 40,
    ) -> None:
        self._find_vgic, self._on_placed, self.ipa_bits = find_vgic, on_placed, ipa_bits
        self._its: Its | None = None
        self._vgic: Vgic | None = None
        self.connect()

    def __repr__(self) -> str:
        return f"<ItsDevice: {'initialized' if self._its is not None else 'not initialized'}>"

    def connect(self) -> None:
        """Add the ITS to the GICv3 of the VM. No effect if the VM has no GICv3 yet, or if the ITS
        was added already."""
        vgic = self._find_vgic()
        if self._its is None and vgic is not None and vgic.model == 3:
            self._its = vgic.add_its()
            self._vgic = vgic

    @property
    def its(self) -> Its:
        """The ITS of this device. KvmError ENODEV while the VM has no GICv3."""
        if self._its is None:
            raise KvmError("ENODEV", "an ITS needs a GICv3 in its VM")
        return self._its

    def has_attr(self, group: int, attr: int) -> None:
        """Check an attribute for KVM_HAS_DEVICE_ATTR. KvmError ENXIO if the attribute does not
        exist, EINVAL if the offset of a register is not aligned."""
        if group == Group.ITS_REGS:
            from armvirt.hyp.vgic.its import registers

            registers.user_register(attr)
        elif (group, attr) != (Group.ADDR, AddrType.ITS) and (
            group != Group.CTRL or attr not in CONTROLS
        ):
            raise _no_attribute(group, attr)

    def get_attr(self, group: int, attr: int, value: int | None = 0) -> int:
        """Read an attribute for KVM_GET_DEVICE_ATTR. KvmError EFAULT if ``value`` is None (user
        space's buffer cannot be accessed). KvmError ENXIO if the attribute does not exist."""
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        if group == Group.ADDR:
            _check_type(attr)
            return UNDEFINED_ADDRESS if self.its.base is None else self.its.base
        if group == Group.ITS_REGS:
            from armvirt.hyp.vgic.its import registers

            return registers.user_read(self._placed(attr), attr)
        raise _no_attribute(group, attr)

    def set_attr(self, group: int, attr: int, value: int | None = 0) -> None:
        """Write an attribute for KVM_SET_DEVICE_ATTR. ``value`` is ignored in group CTRL, whose
        attributes have no value."""
        if group == Group.CTRL:
            self._control(attr)
            return
        if group not in (Group.ADDR, Group.ITS_REGS):
            raise _no_attribute(group, attr)
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        check_value(value)
        if group == Group.ADDR:
            self._set_address(attr, value)
        else:
            from armvirt.hyp.vgic.its import registers

            registers.user_write(self._placed(attr), attr, value)

    def _set_address(self, attr: int, base: int) -> None:
        _check_type(attr)
        its = self.its
        if its.base is not None:
            raise KvmError("EEXIST", "the ITS's address is set already")
        check_range(self.ipa_bits, base, GITS_SIZE, GITS_FRAME_SIZE)
        vgic = self._vgic
        assert vgic is not None
        # The first run of a vCPU checks all frames. An ITS that is added later is checked here.
        if its.dist.ready and any(frame.overlaps(base, GITS_SIZE) for frame in vgic.mmio_frames()):
            raise KvmError("EINVAL", f"an ITS at {base:#x} overlaps another frame")
        its.base = base
        self._on_placed()

    def _placed(self, attr: int) -> Its:
        """The ITS of this device, for an access to a register. ``attr`` is the offset of the
        register in bytes. KvmError EINVAL if the offset is not aligned. KvmError ENXIO if user
        space has not set the address of the ITS."""
        from armvirt.hyp.vgic.its import registers

        try:
            registers.user_register(attr)
        except KvmError as error:
            if error.errno == "EINVAL":
                raise
        if self.its.base is None:
            raise KvmError("ENXIO", "the ITS has no address")
        return self.its

    def _control(self, attr: int) -> None:
        """Execute an attribute of group CTRL: save the tables, restore the tables, or reset the
        ITS. INIT has no effect."""
        its = self.its
        if attr not in CONTROLS:
            raise _no_attribute(Group.CTRL, attr)
        vgic = self._vgic
        assert vgic is not None
        vgic.finish()
        try:
            self._work_on_tables(its, attr)
        finally:
            vgic.finish()

    @staticmethod
    def _work_on_tables(its: Its, attr: int) -> None:
        if attr == Ctrl.ITS_CTRL_RESET:
            its.reset()
        elif attr != Ctrl.INIT:
            from armvirt.hyp.vgic.its import tables

            (tables.save if attr == Ctrl.ITS_SAVE_TABLES else tables.restore)(its)


def _check_type(attr: int) -> None:
    if attr != AddrType.ITS:
        raise KvmError("ENODEV", "an ITS has one address, KVM_VGIC_ITS_ADDR_TYPE")


def _no_attribute(group: int, attr: int) -> KvmError:
    return KvmError("ENXIO", f"an ITS has no attribute {attr:#x} in group {group}")
