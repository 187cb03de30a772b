"""A guest and a hypervisor on one virtual CPU interface: ICC_*_EL1 and ICH_*_EL2 by name."""

from __future__ import annotations

from armvirt.arch import gic as arch
from armvirt.arch.gic import ICC_REGISTERS, ICH_REGISTERS, ListRegister
from armvirt.events import EventBus
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface


class Guest:
    """EL1 in front of a virtual CPU interface, all of whose accesses are virtual."""

    def __init__(self, list_registers: int = 4, prebits: int = 5) -> None:
        self.gic, self.bus = PhysicalGic(1), EventBus()
        self.vif = VirtualCpuInterface(0, self.gic, self.bus, list_registers, prebits)
        self.vif.program(arch.ICH_HCR_EN, [])
        self.write("PMR", 0xFF)
        self.write("IGRPEN0", 1)
        self.write("IGRPEN1", 1)

    def read(self, name: str) -> int:
        outcome = self.vif.icc_access(ICC_REGISTERS[f"ICC_{name}_EL1"], False, 0, 1, True, True)
        assert outcome.action is IccAction.DONE
        return outcome.value

    def write(self, name: str, value: int) -> None:
        outcome = self.vif.icc_access(ICC_REGISTERS[f"ICC_{name}_EL1"], True, value, 1, True, True)
        assert outcome.action is IccAction.DONE

    def pend(
        self, lr: int, intid: int, priority: int = 0x80, group: int = 1, **fields: object
    ) -> None:
        value = ListRegister(intid, priority, group, True, False)._replace(**fields).encode()  # type: ignore[arg-type]
        self.vif.write_ich(ICH_REGISTERS[f"ICH_LR{lr}_EL2"], value)

    def lr(self, n: int) -> ListRegister:
        return ListRegister.decode(self.vif.read_ich(ICH_REGISTERS[f"ICH_LR{n}_EL2"]))

    def ich(self, name: str, value: int | None = None) -> int:
        """ICH_<name>_EL2: write it if there is a value, and read it."""
        encoding = ICH_REGISTERS[f"ICH_{name}_EL2"]
        if value is not None:
            self.vif.write_ich(encoding, value)
        return self.vif.read_ich(encoding)

    @property
    def eoicount(self) -> int:
        return self.ich("HCR") >> arch.ICH_HCR_EOICOUNT_SHIFT
