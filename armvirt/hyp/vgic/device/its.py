"""An ITS as a KVM device (Documentation/virt/kvm/devices/arm-vgic-its.rst, kvm/vgic/vgic-its.c).

Attributes as those of the vGIC: values are integers, None stands for an address that cannot be
read, errors are KvmError. What the ITS itself consists of is loaded when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.arch.gic import GITS_FRAME_SIZE, GITS_SIZE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device.attributes import AddrType, Ctrl, Group, check_range, check_value

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its
    from armvirt.hyp.vgic.vgic import Vgic

UNDEFINED_ADDRESS = (1 << 64) - 1
CONTROLS = (Ctrl.INIT, Ctrl.ITS_SAVE_TABLES, Ctrl.ITS_RESTORE_TABLES, Ctrl.ITS_CTRL_RESET)


class ItsDevice:
    """KVM_DEV_TYPE_ARM_VGIC_ITS, one of several. ``find_vgic`` gives the VM's interrupt controller
    once there is one; ``on_placed`` is called when the ITS has got its address. ``ipa_bits`` is the
    size of the address space.
    """

    def __init__(
        self,
        find_vgic: Callable[[], Vgic | None],
        on_placed: Callable[[], None] = lambda: None,
        ipa_bits: int = 40,
    ) -> None:
        self._find_vgic, self._on_placed, self.ipa_bits = find_vgic, on_placed, ipa_bits
        self._its: Its | None = None
        self.connect()

    def __repr__(self) -> str:
        return f"<ItsDevice: {'initialized' if self._its is not None else 'not initialized'}>"

    def connect(self) -> None:
        """Join the VM's GICv3, if there is one by now."""
        vgic = self._find_vgic()
        if self._its is None and vgic is not None and vgic.model == 3:
            from armvirt.arch.its import PROPBASER_RESET
            from armvirt.hyp.vgic.its.its import Its

            self._its = Its(vgic)
            vgic.its.append(self._its)
            vgic.propbaser = vgic.propbaser or PROPBASER_RESET

    @property
    def its(self) -> Its:
        """KvmError ENODEV while the VM has no GICv3."""
        if self._its is None:
            raise KvmError("ENODEV", "an ITS needs a GICv3 in its VM")
        return self._its

    def has_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR: KvmError ENXIO if there is no such attribute."""
        if group == Group.ITS_REGS:
            from armvirt.hyp.vgic.its import registers as its_regs

            its_regs.user_register(attr)
        elif (group, attr) != (Group.ADDR, AddrType.ITS) and (
            group != Group.CTRL or attr not in CONTROLS
        ):
            raise _no_attribute(group, attr)

    def get_attr(self, group: int, attr: int, value: int | None = 0) -> int:
        """KVM_GET_DEVICE_ATTR."""
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        if group == Group.ADDR:
            _check_type(attr)
            return UNDEFINED_ADDRESS if self.its.base is None else self.its.base
        if group == Group.ITS_REGS:
            from armvirt.hyp.vgic.its import registers as its_regs

            return its_regs.user_read(self._placed(attr), attr)
        raise _no_attribute(group, attr)

    def set_attr(self, group: int, attr: int, value: int | None = 0) -> None:
        """KVM_SET_DEVICE_ATTR. The control attributes take no value."""
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
            from armvirt.hyp.vgic.its import registers as its_regs

            its_regs.user_write(self._placed(attr), attr, value)

    def _set_address(self, attr: int, base: int) -> None:
        _check_type(attr)
        its = self.its
        if its.base is not None:
            raise KvmError("EEXIST", "the ITS's address is set already")
        check_range(self, base, GITS_SIZE, GITS_FRAME_SIZE)
        if its.vgic.ready and any(
            frame.overlaps(base, GITS_SIZE) for frame in its.vgic.mmio_frames()
        ):
            raise KvmError(
                "EINVAL", f"an ITS at {base:#x} overlaps another frame"
            )  # no first run will find it now
        its.base = base
        self._on_placed()

    def _placed(self, attr: int) -> Its:
        """Registers can be reached when the ITS has an address (ENXIO); a bad offset is found
        first."""
        from armvirt.hyp.vgic.its import registers as its_regs

        try:
            its_regs.user_register(attr)
        except KvmError as error:
            if error.errno == "EINVAL":
                raise
        if self.its.base is None:
            raise KvmError("ENXIO", "the ITS has no address")
        return self.its

    def _control(self, attr: int) -> None:
        """INIT has nothing to do; the others work on tables, or forget them."""
        its = self.its
        if attr not in CONTROLS:
            raise _no_attribute(Group.CTRL, attr)
        its.vgic.finish()
        try:
            self._work_on_tables(its, attr)
        finally:
            its.vgic.finish()

    @staticmethod
    def _work_on_tables(its: Its, attr: int) -> None:
        if attr == Ctrl.ITS_CTRL_RESET:
            its.reset()
        elif attr != Ctrl.INIT:
            from armvirt.hyp.vgic.its import tables as its_tables

            (its_tables.save if attr == Ctrl.ITS_SAVE_TABLES else its_tables.restore)(its)


def _check_type(attr: int) -> None:
    if attr != AddrType.ITS:
        raise KvmError("ENODEV", "an ITS has one address, KVM_VGIC_ITS_ADDR_TYPE")


def _no_attribute(group: int, attr: int) -> KvmError:
    return KvmError("ENXIO", f"an ITS has no attribute {attr:#x} in group {group}")
