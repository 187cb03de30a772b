"""The state of a controller is saved, restored into one at reset and saved again: both states are
equal, and so is every readable attribute. Random accesses (`gic_fuzz`) make the states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest
from gic_fuzz import ICC_NAMES, VTIMER, Fuzzer
from gic_fuzz_its import PENDING, PROPERTIES, RAM, ItsFuzzer

from armvirt.arch.gic import FIRST_SPI
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import Group
from armvirt.hyp.vgic.its import registers as its_regs
from armvirt.machine import vgic_save
from armvirt.machine.vgic_save import Line, Saved

SEEDS = range(16)
AGES = (0, 7, 60, 700)  # steps from reset on
Attributes = dict[tuple[int, int], int]


class Plain(Fuzzer):
    """Without lines of SGIs, which have no wire."""

    def _line(self) -> None:
        inject = self.vgic.inject
        self.vgic.inject = lambda vcpu, intid, *more: (
            inject(vcpu, intid, *more) if intid > 15 else None
        )  # type: ignore[method-assign]
        try:
            super()._line()
        finally:
            del self.vgic.inject


class WithIts(ItsFuzzer, Plain):
    """A guest that leaves its tables to the ITS, as it must (IHI 0069 5.1.2: else the translation
    is UNPREDICTABLE), and has them where they are when the ITS is enabled."""

    def _guest_memory(self) -> None:
        base = self.rng.choice((PROPERTIES, PENDING + 1024))
        self.memory.write(base + int(self.rng.random() * 64), bytes((self.rng.getrandbits(8),)))

    def _base(self) -> int:
        return (
            RAM + 0xD_0000 + 0x1_0000 * int(self.rng.random() * 3)
            | int(self.rng.random() < 0.8) << 63
        )


Machine = TypeVar("Machine", bound=Fuzzer)


def _at_reset(machine: Machine) -> Machine:
    """One of the same shape that nobody has touched."""

    class Untouched(type(machine)):  # type: ignore[misc]
        def _set_up(self) -> None:
            pass

    return Untouched(machine.seed)  # type: ignore[no-any-return]


def _high(machine: Fuzzer) -> set[Line]:
    private = {
        (cpu.vcpu_id, irq.intid)
        for cpu in machine.vgic.dist.cpus()
        for irq in cpu.private
        if irq.line_level
    }
    spis = machine.vgic.dist.spis(FIRST_SPI, machine.vgic.dist.nr_spis)
    return {*private, *((None, irq.intid) for irq in spis if irq.line_level)}


def _save(machine: Fuzzer) -> tuple[list[Saved], list[Saved]]:
    if machine.model == 2:
        return vgic_save.save_v2(machine.device, range(machine.vcpus), _high(machine)), []
    its = (
        vgic_save.save_its(machine.device, machine.its_device)
        if isinstance(machine, WithIts)
        else []
    )
    return vgic_save.save_v3(machine.device, range(machine.vcpus), _high(machine)), its


def _restore(machine: Fuzzer, old: Fuzzer, rows: list[Saved], its: list[Saved]) -> None:
    """As `armvirt.machine.migrate` does: memory, the lines of a GICv2, the controller, its ITS."""
    machine.timer_line = list(old.timer_line)
    for vcpu, pe in machine.pe_of.items():
        machine.gic.set_line(pe, VTIMER, machine.timer_line[vcpu])
    if machine.model == 2:
        for vcpu, intid in sorted(_high(old), key=str):
            machine.vgic.inject(vcpu, intid, True)
    vgic_save.restore(machine.device, rows)
    if its and isinstance(machine, WithIts) and isinstance(old, WithIts):
        machine.memory.bytes[:] = old.memory.bytes
        vgic_save.restore_its(machine.its_device, its)


def _attributes(machine: Fuzzer) -> Attributes:
    """Every attribute that can be read, by group and number."""
    found: Attributes = {}
    for vcpu in range(machine.vcpus):
        first, second = (_words(rows) for _, _, rows in machine.frames[:2])
        numbers: dict[Group, Iterable[int]] = {Group.DIST_REGS: first, Group.LEVEL_INFO: range(0, machine.nr_irqs, 32),
                                               Group.REDIST_REGS: second, Group.CPU_SYSREGS: ICC_NAMES}  # fmt: skip
        if machine.model == 2:
            numbers = {Group.DIST_REGS: first, Group.CPU_REGS: second}
        for group, attrs in numbers.items():
            _read(found, machine.device, group, [vcpu << 32 | attr for attr in attrs])
    if isinstance(machine, WithIts):
        _read(found, machine.its_device, Group.ITS_REGS, list(its_regs.REGISTERS))
    return found


def _words(rows: list[tuple[int, int]]) -> list[int]:
    return [at for offset, length in rows for at in range(offset, offset + length, 4)]


def _read(found: Attributes, device: object, group: Group, attrs: list[int]) -> None:
    for attr in attrs:
        try:
            found[group, attr] = device.get_attr(group, attr)  # type: ignore[attr-defined]
        except KvmError:
            pass


def _check(machine: Fuzzer) -> bool:
    """False where the guest has left its ITS no tables to be saved in, or nonsense in them:
    KvmError, as from KVM."""
    try:
        rows, its = _save(machine)
        before, new = _attributes(machine), _at_reset(machine)
        _restore(new, machine, rows, its)
    except KvmError as error:
        assert isinstance(machine, WithIts) and error.errno in ("EINVAL", "EFAULT"), error
        return False
    assert _save(new) == (rows, its)
    after = _attributes(new)
    assert {
        key: (before[key], after.get(key)) for key in before if before[key] != after.get(key)
    } == {}
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restore_is_the_identity(seed: int) -> None:
    for steps in AGES:
        machine = Plain(seed)
        machine.run(steps)
        assert _check(machine)


@pytest.mark.long
def test_so_it_is_with_an_its() -> None:
    restored = 0
    for seed in SEEDS:
        for steps in AGES:
            machine = WithIts(seed)
            machine.run(steps)
            restored += _check(machine)
    assert restored > 0.8 * len(SEEDS) * len(AGES)


def test_reset_can_be_restored() -> None:
    """GICR_PENDBASER and GITS_CBASER read at reset as they do after a restore of what was read."""
    machine = _at_reset(WithIts(1))
    assert _check(machine)
    assert machine.its.cbaser >> 63 == 0 and machine.device.get_attr(Group.REDIST_REGS, 0x78)
