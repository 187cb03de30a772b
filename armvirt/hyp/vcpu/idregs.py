"""The ID registers that a guest reads: the CPU's values without the features that the hypervisor
does not virtualize.

HCR_EL2.TID3 traps reads of the feature registers. KVM returns sanitised values
(arch/arm64/kvm/sys_regs.c, read_id_reg). DDI 0487 D23.2 describes the fields. The table `_RULES`
lists the fields that a guest can see. All other fields read as zero. In most fields, zero means
"not implemented". In the signed fields FP and AdvSIMD, zero means "implemented". Therefore these
two fields must be in the table.
"""

from __future__ import annotations

from collections.abc import Iterable

from armvirt.arch.encoding import SysReg
from armvirt.arch.named import ID_AA64PFR0_EL1, MPIDR_RES1, PFR0_GIC_SYSREGS
from armvirt.arch.sysregs import BY_NAME, is_id_space
from armvirt.records import NamedTuple


class IdRule(NamedTuple):
    """The rule for one ID register. The guest reads the CPU's value in the fields of ``keep``, the
    given value in the fields of ``fixed``, and zero in all other fields."""

    keep: tuple[str, ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()


_RULES: dict[str, IdRule] = {
    "ID_AA64PFR0_EL1": IdRule(
        keep=("FP", "AdvSIMD"),
        # The guest has EL0 and EL1 in AArch64 only, and no EL2, EL3, RAS, SVE, MPAM and AMU.
        # CSV2 and CSV3 tell the guest that no mitigations are necessary, because an emulator does
        # not speculate. KVM sets the same values on an unaffected host.
        fixed=(("EL0", 1), ("EL1", 1), ("CSV2", 1), ("CSV3", 1)),
    ),
    "ID_AA64PFR1_EL1": IdRule(keep=("SSBS",)),
    # The guest has the CPU's breakpoints, watchpoints and context comparators, but no PMU, SPE and
    # trace.
    "ID_AA64DFR0_EL1": IdRule(keep=("DebugVer", "BRPs", "WRPs", "CTX_CMPs")),
    # The guest has all instructions that only compute. RNDR is hidden, because its numbers come
    # from the host. TME is hidden, too.
    "ID_AA64ISAR0_EL1": IdRule(
        keep=(
            "AES",
            "SHA1",
            "SHA2",
            "CRC32",
            "Atomic",
            "RDM",
            "SHA3",
            "SM3",
            "SM4",
            "DP",
            "FHM",
            "TS",
        ),
    ),
    # Pointer authentication is hidden, because EL2 does not save the keys.
    "ID_AA64ISAR1_EL1": IdRule(
        keep=("DPB", "JSCVT", "FCMA", "LRCPC", "FRINTTS", "SB", "BF16", "I8MM")
    ),
    # The guest has no EL2, so the fields of EL2 are hidden: stage-2 granules, fine-grained traps,
    # ECV. The guest has no EL3, so the field of secure memory is hidden.
    "ID_AA64MMFR0_EL1": IdRule(
        keep=("PARange", "ASIDBits", "BigEnd", "BigEndEL0", "TGran16", "TGran64", "TGran4"),
    ),
    "ID_AA64MMFR1_EL1": IdRule(keep=("HAFDBS", "HPDS", "PAN")),
    "ID_AA64MMFR2_EL1": IdRule(keep=("CnP", "UAO", "VARange", "CCIDX", "AT", "E0PD")),
}


class _Masks(NamedTuple):
    keep: int
    fixed: int


def _compile(name: str, rule: IdRule) -> _Masks:
    """Return a pair: the mask of the fields that keep the value of the CPU, and the bits of the
    fields that the rule fixes. KeyError for a field that the register does not have."""
    fields = {field.name: field for field in BY_NAME[name].fields}
    fixed = 0
    for field, value in rule.fixed:
        fixed = fields[field].put(fixed, value)
    return _Masks(sum(fields[field].mask for field in rule.keep), fixed)


_NOTHING = _Masks(0, 0)
_MASKS: dict[int, _Masks] = {
    BY_NAME[name].encoding: _compile(name, rule) for name, rule in _RULES.items()
}

#: The registers with a rule. Every other register in the trapped space reads as zero.
KNOWN: frozenset[int] = frozenset(_MASKS)

#: The features that `HostConfig.cpu_features` can add to the CPU: register, field, value.
FEATURES = {"ecv": ("ID_AA64MMFR0_EL1", "ECV", 1), "wfxt": ("ID_AA64ISAR2_EL1", "WFxT", 2)}


def added(encoding: int, features: Iterable[str]) -> int:
    """The bits of an ID register that report ``features``. ``encoding`` is the encoding of the ID
    register. Each feature is a key of `FEATURES`. All other bits of the result are 0."""
    value = 0
    for register, name, number in (FEATURES[feature] for feature in features):
        if BY_NAME[register].encoding == encoding:
            value = next(f for f in BY_NAME[register].fields if f.name == name).put(value, number)
    return value


def visible(encoding: int, native_value: int, gicv3: bool, features: Iterable[str] = ()) -> int:
    """The value that the guest reads from an ID register. ``native_value`` is the CPU's value. If
    ``gicv3`` is true, ID_AA64PFR0_EL1.GIC reports that ICC_*_EL1 exist. ``features`` are the
    features that `added` reports.

    HCR_EL2.TID3 traps the encodings with op0=3, op1=0, CRn=0, CRm=1..7. Of these registers, a
    register without a rule reads as zero. Registers without a rule are the reserved registers, and
    the AArch32 registers, because guests have no AArch32. Of all other registers (MIDR_EL1,
    CTR_EL0, caches) the guest reads the CPU's value.
    """
    if not is_id_space(encoding):
        return native_value
    masks = _MASKS.get(encoding, _NOTHING)
    value = native_value & masks.keep | masks.fixed | (added(encoding, features) if features else 0)
    return value | PFR0_GIC_SYSREGS if gicv3 and encoding == ID_AA64PFR0_EL1 else value


def mpidr_of(vcpu_id: int) -> int:
    """The MPIDR_EL1 of a vCPU, as in KVM (reset_mpidr): Aff0 = id[3:0], Aff1 = id[11:4], Aff2 =
    id[19:12].

    Aff0 is below 16, because the target list of a GICv3 SGI has 16 bits, one for each value of
    Aff0.
    """
    return MPIDR_RES1 | vcpu_id & 0xF | (vcpu_id >> 4 & 0xFF) << 8 | (vcpu_id >> 12 & 0xFF) << 16


def rules() -> list[tuple[SysReg, IdRule]]:
    """The rules of all registers, for documentation and tests."""
    return [(BY_NAME[name], rule) for name, rule in _RULES.items()]
