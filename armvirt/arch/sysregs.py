"""System registers as data: one table of names, encodings, access, reset values and fields.

The rows follow Arm DDI 0487 (D23, "AArch64 System register descriptions"). The table has the
registers that a Cortex-A72 guest at EL1/EL0 can access, the EL2 registers that the hypervisor
programs, and the whole ID space. The trace, the order of registers in a saved state, the debugger's
target description and the documentation use these rows. Other packages implement the behaviour of
the registers, and find the rows by name.

The GIC CPU interface (ICC_*, ICH_*) has its own table in `armvirt.arch.gic`; `name_of` searches
both tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from armvirt.arch.encoding import SysReg, define, generic_name, sysreg, unpack
from armvirt.arch.gic import ICC_ROWS, ICH_ROWS

DEBUG_BREAKPOINTS = 6  # Cortex-A72: ID_AA64DFR0_EL1.BRPs + 1
DEBUG_WATCHPOINTS = 4  # Cortex-A72: ID_AA64DFR0_EL1.WRPs + 1


_EVENT_STREAM = "EVNTEN:2 EVNTDIR:3 EVNTI:7:4"
_TIMER_CTL = "ENABLE:0 IMASK:1 ISTATUS:2"
_SYNDROME = "ISS:24:0 IL:25 EC:31:26"
_SPSR = "M:3:0 nRW:4 F:6 I:7 A:8 D:9 IL:20 SS:21 PAN:22 UAO:23 V:28 C:29 Z:30 N:31"

# Control, translation and exception registers of EL1 and EL0 (DDI 0487 D23.2).
_EL1_ROWS: tuple[SysReg, ...] = (
    define(
        "SCTLR_EL1",
        (3, 0, 1, 0, 0),
        reset=0x00C50838,
        layout=(
            "M:0 A:1 C:2 SA:3 SA0:4 CP15BEN:5 ITD:7 SED:8 UMA:9 I:12 DZE:14 UCT:15 nTWI:16 nTWE:18 WXN:19 E0E:24 EE:25"
            " UCI:26"
        ),
    ),
    define("ACTLR_EL1", (3, 0, 1, 0, 1)),
    define("CPACR_EL1", (3, 0, 1, 0, 2), layout="FPEN:21:20 TTA:28"),
    define("TTBR0_EL1", (3, 0, 2, 0, 0), layout="CnP:0 BADDR:47:1 ASID:63:48"),
    define("TTBR1_EL1", (3, 0, 2, 0, 1), layout="CnP:0 BADDR:47:1 ASID:63:48"),
    define(
        "TCR_EL1",
        (3, 0, 2, 0, 2),
        layout=(
            "T0SZ:5:0 EPD0:7 IRGN0:9:8 ORGN0:11:10 SH0:13:12 TG0:15:14 T1SZ:21:16 A1:22 EPD1:23 IRGN1:25:24 ORGN1:27:26"
            " SH1:29:28 TG1:31:30 IPS:34:32 AS:36 TBI0:37 TBI1:38"
        ),
    ),
    define("SPSR_EL1", (3, 0, 4, 0, 0), layout=_SPSR),
    define("ELR_EL1", (3, 0, 4, 0, 1)),
    define("SP_EL0", (3, 0, 4, 1, 0)),
    define("SPSel", (3, 0, 4, 2, 0), layout="SP:0", reset=1),
    define("CurrentEL", (3, 0, 4, 2, 2), "ro", "EL:3:2"),
    define("AFSR0_EL1", (3, 0, 5, 1, 0)),
    define("AFSR1_EL1", (3, 0, 5, 1, 1)),
    define("ESR_EL1", (3, 0, 5, 2, 0), layout=_SYNDROME),
    define("FAR_EL1", (3, 0, 6, 0, 0)),
    define("PAR_EL1", (3, 0, 7, 4, 0), layout="F:0 FST:6:1 PTW:8 S:9 PA:47:12 ATTR:63:56"),
    define(
        "MAIR_EL1",
        (3, 0, 10, 2, 0),
        layout=" ".join(f"Attr{n}:{8 * n + 7}:{8 * n}" for n in range(8)),
    ),
    define("AMAIR_EL1", (3, 0, 10, 3, 0)),
    define("VBAR_EL1", (3, 0, 12, 0, 0), layout="BASE:63:11"),
    define("RVBAR_EL1", (3, 0, 12, 0, 1), "ro"),
    define("RMR_EL1", (3, 0, 12, 0, 2), layout="AA64:0 RR:1"),
    define("ISR_EL1", (3, 0, 12, 1, 0), "ro", "F:6 I:7 A:8"),
    define("CONTEXTIDR_EL1", (3, 0, 13, 0, 1), layout="PROCID:31:0"),
    define("TPIDR_EL1", (3, 0, 13, 0, 4)),
    define("NZCV", (3, 3, 4, 2, 0), layout="V:28 C:29 Z:30 N:31"),
    define("DAIF", (3, 3, 4, 2, 1), layout="F:6 I:7 A:8 D:9", reset=0x3C0),
    define("FPCR", (3, 3, 4, 4, 0), layout="RMode:23:22 FZ:24 DN:25 AHP:26"),
    define("FPSR", (3, 3, 4, 4, 1), layout="IOC:0 DZC:1 OFC:2 UFC:3 IXC:4 IDC:7 QC:27"),
    define("DSPSR_EL0", (3, 3, 4, 5, 0)),
    define("DLR_EL0", (3, 3, 4, 5, 1)),
    define("TPIDR_EL0", (3, 3, 13, 0, 2)),
    define("TPIDRRO_EL0", (3, 3, 13, 0, 3)),
)

# The Generic Timer (DDI 0487 D12 and D23.9).
_TIMER_ROWS: tuple[SysReg, ...] = (
    define(
        "CNTKCTL_EL1",
        (3, 0, 14, 1, 0),
        layout=f"EL0PCTEN:0 EL0VCTEN:1 {_EVENT_STREAM} EL0VTEN:8 EL0PTEN:9 EVNTIS:17",
    ),
    define("CNTFRQ_EL0", (3, 3, 14, 0, 0), layout="FREQ:31:0"),
    define("CNTPCT_EL0", (3, 3, 14, 0, 1), "ro"),
    define("CNTVCT_EL0", (3, 3, 14, 0, 2), "ro"),
    define("CNTPCTSS_EL0", (3, 3, 14, 0, 5), "ro"),
    define("CNTVCTSS_EL0", (3, 3, 14, 0, 6), "ro"),
    define("CNTP_TVAL_EL0", (3, 3, 14, 2, 0), layout="TimerValue:31:0"),
    define("CNTP_CTL_EL0", (3, 3, 14, 2, 1), layout=_TIMER_CTL),
    define("CNTP_CVAL_EL0", (3, 3, 14, 2, 2)),
    define("CNTV_TVAL_EL0", (3, 3, 14, 3, 0), layout="TimerValue:31:0"),
    define("CNTV_CTL_EL0", (3, 3, 14, 3, 1), layout=_TIMER_CTL),
    define("CNTV_CVAL_EL0", (3, 3, 14, 3, 2)),
    define("CNTVOFF_EL2", (3, 4, 14, 0, 3)),
    define("CNTPOFF_EL2", (3, 4, 14, 0, 6)),
    # The layout with HCR_EL2.E2H = 0; with E2H = 1, EL1PCTEN and EL1PCEN are ten bits higher.
    define(
        "CNTHCTL_EL2",
        (3, 4, 14, 1, 0),
        reset=3,
        layout=f"EL1PCTEN:0 EL1PCEN:1 {_EVENT_STREAM} ECV:12 EL1TVT:13 EL1TVCT:14 EVNTIS:17",
    ),
    define("CNTHP_TVAL_EL2", (3, 4, 14, 2, 0), layout="TimerValue:31:0"),
    define("CNTHP_CTL_EL2", (3, 4, 14, 2, 1), layout=_TIMER_CTL),
    define("CNTHP_CVAL_EL2", (3, 4, 14, 2, 2)),
)

# Registers that the hypervisor programs (DDI 0487 D23.2, the _EL2 registers).
_EL2_ROWS: tuple[SysReg, ...] = (
    define("VPIDR_EL2", (3, 4, 0, 0, 0)),
    define("VMPIDR_EL2", (3, 4, 0, 0, 5)),
    define("SCTLR_EL2", (3, 4, 1, 0, 0)),
    define(
        "HCR_EL2",
        (3, 4, 1, 1, 0),
        layout=(
            "VM:0 SWIO:1 PTW:2 FMO:3 IMO:4 AMO:5 VF:6 VI:7 VSE:8 FB:9 BSU:11:10 DC:12 TWI:13 TWE:14 TID0:15 TID1:16"
            " TID2:17 TID3:18 TSC:19 TIDCP:20 TACR:21 TSW:22 TPC:23 TPU:24 TTLB:25 TVM:26 TGE:27 TDZ:28 HCD:29 TRVM:30"
            " RW:31 CD:32 ID:33 E2H:34"
        ),
    ),
    define(
        "MDCR_EL2",
        (3, 4, 1, 1, 1),
        layout="HPMN:4:0 TPMCR:5 TPM:6 HPME:7 TDE:8 TDA:9 TDOSA:10 TDRA:11",
    ),
    define("CPTR_EL2", (3, 4, 1, 1, 2), layout="TFP:10 TTA:20 TCPAC:31"),
    define("HSTR_EL2", (3, 4, 1, 1, 3)),
    define("VTTBR_EL2", (3, 4, 2, 1, 0), layout="CnP:0 BADDR:47:1 VMID:63:48"),
    define(
        "VTCR_EL2",
        (3, 4, 2, 1, 2),
        layout="T0SZ:5:0 SL0:7:6 IRGN0:9:8 ORGN0:11:10 SH0:13:12 TG0:15:14 PS:18:16",
    ),
    define("SPSR_EL2", (3, 4, 4, 0, 0), layout=_SPSR),
    define("ELR_EL2", (3, 4, 4, 0, 1)),
    define("SP_EL1", (3, 4, 4, 1, 0)),
    define("ESR_EL2", (3, 4, 5, 2, 0), layout=_SYNDROME),
    define("FAR_EL2", (3, 4, 6, 0, 0)),
    define("HPFAR_EL2", (3, 4, 6, 0, 4), layout="FIPA:43:4"),
    define("TPIDR_EL2", (3, 4, 13, 0, 2)),
    define(
        "SCR_EL3",
        (3, 6, 1, 1, 0),
        layout="NS:0 IRQ:1 FIQ:2 EA:3 SMD:7 HCE:8 SIF:9 RW:10 ST:11 TWI:12 TWE:13",
    ),
)


def _debug_rows() -> Iterator[SysReg]:
    """The rows of the self-hosted debug registers (DDI 0487 D23.3): first the pairs of value and
    control registers, then the other registers."""
    control = "E:0 PMC:2:1 BAS:8:5 HMC:13 SSC:15:14 LBN:19:16 BT:23:20"
    watch = "E:0 PAC:2:1 LSC:4:3 BAS:12:5 HMC:13 SSC:15:14 LBN:19:16 WT:20 MASK:28:24"
    for n in range(DEBUG_BREAKPOINTS):
        yield define(f"DBGBVR{n}_EL1", (2, 0, 0, n, 4))
        yield define(f"DBGBCR{n}_EL1", (2, 0, 0, n, 5), layout=control)
    for n in range(DEBUG_WATCHPOINTS):
        yield define(f"DBGWVR{n}_EL1", (2, 0, 0, n, 6))
        yield define(f"DBGWCR{n}_EL1", (2, 0, 0, n, 7), layout=watch)
    yield define("OSDTRRX_EL1", (2, 0, 0, 0, 2))
    yield define("MDCCINT_EL1", (2, 0, 0, 2, 0))
    yield define(
        "MDSCR_EL1",
        (2, 0, 0, 2, 2),
        layout=("SS:0 ERR:6 TDCC:12 KDE:13 HDE:14 MDE:15 TXU:26 RXO:27 TXfull:29 RXfull:30"),
    )
    yield define("OSDTRTX_EL1", (2, 0, 0, 3, 2))
    yield define("OSECCR_EL1", (2, 0, 0, 6, 2))
    yield define("MDRAR_EL1", (2, 0, 1, 0, 0), "ro")
    yield define("OSLAR_EL1", (2, 0, 1, 0, 4), "wo", "OSLK:0")
    yield define("OSLSR_EL1", (2, 0, 1, 1, 4), "ro", "OSLM0:0 OSLK:1 nTT:2 OSLM1:3", 0xA)
    yield define("OSDLR_EL1", (2, 0, 1, 3, 4), layout="DLK:0")
    yield define("DBGPRCR_EL1", (2, 0, 1, 4, 4))
    yield define("DBGCLAIMSET_EL1", (2, 0, 7, 8, 6))
    yield define("DBGCLAIMCLR_EL1", (2, 0, 7, 9, 6))
    yield define("DBGAUTHSTATUS_EL1", (2, 0, 7, 14, 6), "ro")
    yield define("MDCCSR_EL0", (2, 3, 0, 1, 0), "ro")
    yield define("DBGDTR_EL0", (2, 3, 0, 4, 0))
    yield define("DBGDTRRX_EL0", (2, 3, 0, 5, 0), "ro")


# The performance monitors (DDI 0487 D13). armvirt does not implement them: these rows only name
# the registers in traces.
_PMU_ROWS: tuple[SysReg, ...] = (
    define("PMINTENSET_EL1", (3, 0, 9, 14, 1)),
    define("PMINTENCLR_EL1", (3, 0, 9, 14, 2)),
    define(
        "PMCR_EL0",
        (3, 3, 9, 12, 0),
        layout="E:0 P:1 C:2 D:3 X:4 DP:5 LC:6 N:15:11 IDCODE:23:16 IMP:31:24",
    ),
    define("PMCNTENSET_EL0", (3, 3, 9, 12, 1)),
    define("PMCNTENCLR_EL0", (3, 3, 9, 12, 2)),
    define("PMOVSCLR_EL0", (3, 3, 9, 12, 3)),
    define("PMSWINC_EL0", (3, 3, 9, 12, 4), "wo"),
    define("PMSELR_EL0", (3, 3, 9, 12, 5)),
    define("PMCEID0_EL0", (3, 3, 9, 12, 6), "ro"),
    define("PMCEID1_EL0", (3, 3, 9, 12, 7), "ro"),
    define("PMCCNTR_EL0", (3, 3, 9, 13, 0)),
    define("PMXEVTYPER_EL0", (3, 3, 9, 13, 1)),
    define("PMXEVCNTR_EL0", (3, 3, 9, 13, 2)),
    define("PMUSERENR_EL0", (3, 3, 9, 14, 0), layout="EN:0 SW:1 CR:2 ER:3"),
    define("PMOVSSET_EL0", (3, 3, 9, 14, 3)),
    *(define(f"PMEVCNTR{n}_EL0", (3, 3, 14, 8 + n // 8, n % 8)) for n in range(6)),
    *(define(f"PMEVTYPER{n}_EL0", (3, 3, 14, 12 + n // 8, n % 8)) for n in range(6)),
    define("PMCCFILTR_EL0", (3, 3, 14, 15, 7)),
)

# The ID space op0=3, op1=0, CRn=0: the names by CRm, then by op2. None is a reserved encoding,
# which reads as zero.
_ID_NAMES: dict[int, tuple[str | None, ...]] = {
    1: (
        "ID_PFR0_EL1",
        "ID_PFR1_EL1",
        "ID_DFR0_EL1",
        "ID_AFR0_EL1",
        "ID_MMFR0_EL1",
        "ID_MMFR1_EL1",
        "ID_MMFR2_EL1",
        "ID_MMFR3_EL1",
    ),
    2: (
        "ID_ISAR0_EL1",
        "ID_ISAR1_EL1",
        "ID_ISAR2_EL1",
        "ID_ISAR3_EL1",
        "ID_ISAR4_EL1",
        "ID_ISAR5_EL1",
        "ID_MMFR4_EL1",
        "ID_ISAR6_EL1",
    ),
    3: (
        "MVFR0_EL1",
        "MVFR1_EL1",
        "MVFR2_EL1",
        None,
        "ID_PFR2_EL1",
        "ID_DFR1_EL1",
        "ID_MMFR5_EL1",
        None,
    ),
    4: (
        "ID_AA64PFR0_EL1",
        "ID_AA64PFR1_EL1",
        "ID_AA64PFR2_EL1",
        None,
        "ID_AA64ZFR0_EL1",
        "ID_AA64SMFR0_EL1",
        None,
        "ID_AA64FPFR0_EL1",
    ),
    5: (
        "ID_AA64DFR0_EL1",
        "ID_AA64DFR1_EL1",
        "ID_AA64DFR2_EL1",
        None,
        "ID_AA64AFR0_EL1",
        "ID_AA64AFR1_EL1",
        None,
        None,
    ),
    6: (
        "ID_AA64ISAR0_EL1",
        "ID_AA64ISAR1_EL1",
        "ID_AA64ISAR2_EL1",
        "ID_AA64ISAR3_EL1",
        None,
        None,
        None,
        None,
    ),
    7: (
        "ID_AA64MMFR0_EL1",
        "ID_AA64MMFR1_EL1",
        "ID_AA64MMFR2_EL1",
        "ID_AA64MMFR3_EL1",
        "ID_AA64MMFR4_EL1",
        None,
        None,
        None,
    ),
}

# Fields of the ID registers that armvirt reads.
_ID_LAYOUTS = {
    "ID_AA64PFR0_EL1": (
        "EL0:3:0 EL1:7:4 EL2:11:8 EL3:15:12 FP:19:16 AdvSIMD:23:20 GIC:27:24 RAS:31:28 SVE:35:32 SEL2:39:36"
        " MPAM:43:40 AMU:47:44 DIT:51:48 RME:55:52 CSV2:59:56 CSV3:63:60"
    ),
    "ID_AA64PFR1_EL1": (
        "BT:3:0 SSBS:7:4 MTE:11:8 RAS_frac:15:12 MPAM_frac:19:16 SME:27:24 RNDR_trap:31:28 CSV2_frac:35:32 NMI:39:36"
    ),
    "ID_AA64DFR0_EL1": (
        "DebugVer:3:0 TraceVer:7:4 PMUVer:11:8 BRPs:15:12 WRPs:23:20 CTX_CMPs:31:28 PMSVer:35:32"
        " DoubleLock:39:36 TraceFilt:43:40 TraceBuffer:47:44 MTPMU:51:48 BRBE:55:52"
    ),
    "ID_AA64ISAR0_EL1": (
        "AES:7:4 SHA1:11:8 SHA2:15:12 CRC32:19:16 Atomic:23:20 TME:27:24 RDM:31:28 SHA3:35:32 SM3:39:36"
        " SM4:43:40 DP:47:44 FHM:51:48 TS:55:52 TLB:59:56 RNDR:63:60"
    ),
    "ID_AA64ISAR1_EL1": (
        "DPB:3:0 APA:7:4 API:11:8 JSCVT:15:12 FCMA:19:16 LRCPC:23:20 GPA:27:24 GPI:31:28 FRINTTS:35:32"
        " SB:39:36 SPECRES:43:40 BF16:47:44 DGH:51:48 I8MM:55:52 XS:59:56 LS64:63:60"
    ),
    "ID_AA64ISAR2_EL1": (
        "WFxT:3:0 RPRES:7:4 GPA3:11:8 APA3:15:12 MOPS:19:16 BC:23:20 PAC_frac:27:24"
    ),
    "ID_AA64MMFR0_EL1": (
        "PARange:3:0 ASIDBits:7:4 BigEnd:11:8 SNSMem:15:12 BigEndEL0:19:16 TGran16:23:20 TGran64:27:24"
        " TGran4:31:28 TGran16_2:35:32 TGran64_2:39:36 TGran4_2:43:40 ExS:47:44 FGT:59:56 ECV:63:60"
    ),
    "ID_AA64MMFR1_EL1": (
        "HAFDBS:3:0 VMIDBits:7:4 VH:11:8 HPDS:15:12 LO:19:16 PAN:23:20 SpecSEI:27:24 XNX:31:28 TWED:35:32"
        " ETS:39:36 HCX:43:40 AFP:47:44 nTLBPA:51:48"
    ),
    "ID_AA64MMFR2_EL1": (
        "CnP:3:0 UAO:7:4 LSM:11:8 IESB:15:12 VARange:19:16 CCIDX:23:20 NV:27:24 ST:31:28 AT:35:32 IDS:39:36"
        " FWB:43:40 TTL:51:48 BBM:55:52 EVT:59:56 E0PD:63:60"
    ),
    "ID_PFR0_EL1": (
        "State0:3:0 State1:7:4 State2:11:8 State3:15:12 CSV2:19:16 AMU:23:20 DIT:27:24 RAS:31:28"
    ),
    "ID_PFR1_EL1": (
        "ProgMod:3:0 Security:7:4 MProgMod:11:8 Virtualization:15:12 GenTimer:19:16 Sec_frac:23:20"
        " Virt_frac:27:24 GIC:31:28"
    ),
    "ID_DFR0_EL1": (
        "CopDbg:3:0 CopSDbg:7:4 MMapDbg:11:8 CopTrc:15:12 MMapTrc:19:16 MProfDbg:23:20 PerfMon:27:24 TraceFilt:31:28"
    ),
}


def _id_rows() -> Iterator[SysReg]:
    for crm, names in _ID_NAMES.items():
        for op2, known in enumerate(names):
            name = known or generic_name(sysreg(3, 0, 0, crm, op2))
            yield define(name, (3, 0, 0, crm, op2), "ro", _ID_LAYOUTS.get(name, ""))


# ID registers that HCR_EL2.TID3 does not trap (DDI 0487 D23.2): CPU identity, caches, cache types.
_IDENTITY_ROWS: tuple[SysReg, ...] = (
    define(
        "MIDR_EL1",
        (3, 0, 0, 0, 0),
        "ro",
        ("Revision:3:0 PartNum:15:4 Architecture:19:16 Variant:23:20 Implementer:31:24"),
    ),
    define(
        "MPIDR_EL1",
        (3, 0, 0, 0, 5),
        "ro",
        "Aff0:7:0 Aff1:15:8 Aff2:23:16 MT:24 U:30 RES1:31 Aff3:39:32",
    ),
    define("REVIDR_EL1", (3, 0, 0, 0, 6), "ro"),
    define("CCSIDR_EL1", (3, 1, 0, 0, 0), "ro", "LineSize:2:0 Associativity:12:3 NumSets:27:13"),
    define(
        "CLIDR_EL1",
        (3, 1, 0, 0, 1),
        "ro",
        "Ctype1:2:0 Ctype2:5:3 Ctype3:8:6 LoUIS:23:21 LoC:26:24 LoUU:29:27",
    ),
    define("AIDR_EL1", (3, 1, 0, 0, 7), "ro"),
    define("CSSELR_EL1", (3, 2, 0, 0, 0), layout="InD:0 Level:3:1"),
    define(
        "CTR_EL0",
        (3, 3, 0, 0, 1),
        "ro",
        "IminLine:3:0 L1Ip:15:14 DminLine:19:16 ERG:23:20 CWG:27:24 IDC:28 DIC:29",
    ),
    define("DCZID_EL0", (3, 3, 0, 0, 7), "ro", "BS:3:0 DZP:4"),
)

#: Every ID register that a guest can read: the CPU's identity and all feature registers, with the
#: reserved encodings.
ID_REGISTERS: tuple[SysReg, ...] = (*_IDENTITY_ROWS, *_id_rows())

#: Every row, in the order of the tables above.
SYSREGS: tuple[SysReg, ...] = (
    *ID_REGISTERS,
    *_EL1_ROWS,
    *_TIMER_ROWS,
    *_EL2_ROWS,
    *_debug_rows(),
    *_PMU_ROWS,
)

BY_ENCODING: dict[int, SysReg] = {row.encoding: row for row in SYSREGS}
BY_NAME: dict[str, SysReg] = {row.name: row for row in SYSREGS}
_GIC_BY_ENCODING: dict[int, SysReg] = {row.encoding: row for row in (*ICC_ROWS, *ICH_ROWS)}


def lookup(key: int | str) -> SysReg | None:
    """Find the row of a register by its packed encoding or by its name (case-insensitive). Returns
    None if there is no such row."""
    if isinstance(key, int):
        return BY_ENCODING.get(key)
    return BY_NAME.get(key) or BY_NAME.get(key.upper())


def encoding_of(name: str) -> int:
    """Return the packed encoding of a register. Raises KeyError if the name is unknown."""
    return BY_NAME[name].encoding


def field(name: str) -> int:
    """Return the mask of a field at its position: ``field("HCR_EL2.IMO")``. Raises KeyError if the
    register or the field is unknown.

    Call this function only at import, because it is slow. Code that runs at each exit must use an
    integer that was computed at import.
    """
    register, _, part = name.partition(".")
    return BY_NAME[register].mask(part)


def name_of(encoding: int) -> str:
    """Return the name of a register, or the assembler's generic name if the register is in neither
    table."""
    row = BY_ENCODING.get(encoding) or _GIC_BY_ENCODING.get(encoding)
    return row.name if row is not None else generic_name(encoding)


def is_id_space(encoding: int) -> bool:
    """Return whether HCR_EL2.TID3 traps a read of this encoding: op0=3, op1=0, CRn=0, CRm=1..7 (DDI
    0487, HCR_EL2)."""
    op0, op1, crn, crm, _ = unpack(encoding)
    return (op0, op1, crn) == (3, 0, 0) and 1 <= crm <= 7


def _context_names() -> Iterator[str]:
    yield "CSSELR_EL1"  # selects the cache that the next read of CCSIDR_EL1 describes
    yield "CPACR_EL1"  # without FPEN the guest's FP instructions trap
    yield "ACTLR_EL1"  # RAZ/WI on this core, but part of KVM's register list
    yield "TTBR0_EL1"  # translation: the tables of the lower VA range, with the ASID
    yield "TTBR1_EL1"  # translation: the tables of the upper VA range
    yield "TCR_EL1"  # translation: sizes and granules
    yield "MAIR_EL1"  # translation: memory types
    yield "AMAIR_EL1"  # RAZ/WI on this core, but part of KVM's register list
    yield "CONTEXTIDR_EL1"  # context-aware breakpoints compare this register
    yield "SCTLR_EL1"  # after the translation registers, because SCTLR_EL1.M enables stage 1
    yield "VBAR_EL1"  # the base of the exception vectors
    yield "ESR_EL1"  # the syndrome, which a handler may not have read yet
    yield "AFSR0_EL1"  # RAZ/WI on this core, but part of KVM's register list
    yield "AFSR1_EL1"  # RAZ/WI on this core, but part of KVM's register list
    yield "FAR_EL1"  # the fault address for ESR_EL1
    yield "PAR_EL1"  # the result of an AT, which the guest may not have read yet
    yield "ELR_EL1"  # the return address of ERET
    yield "SPSR_EL1"  # the PSTATE that ERET restores
    yield "TPIDR_EL0"  # thread pointer
    yield "TPIDRRO_EL0"  # thread pointer, read-only at EL0
    yield "TPIDR_EL1"  # per-CPU pointer of the kernel
    yield "CNTKCTL_EL1"  # EL0's access to counters and timers; KVM saves it with the system registers
    yield from (
        f"DBG{kind}{n}_EL1" for n in range(DEBUG_BREAKPOINTS) for kind in ("BVR", "BCR")
    )  # breakpoints
    yield from (
        f"DBG{kind}{n}_EL1" for n in range(DEBUG_WATCHPOINTS) for kind in ("WVR", "WCR")
    )  # watchpoints
    yield "OSDLR_EL1"  # OS double lock: storage only here
    yield "OSLSR_EL1"  # the OS lock; OSLAR_EL1 is write-only and has no other state
    yield "MDSCR_EL1"  # last of the debug registers, because MDSCR_EL1 enables debug exceptions


#: The system registers of a vCPU's EL1/EL0 context, in the order in which a restore writes them.
#: Each register is a plain value in the engine. The arch timer saves the timer registers and the
#: vGIC saves the GIC registers, as in KVM.
CONTEXT_REGISTERS: tuple[SysReg, ...] = tuple(BY_NAME[name] for name in _context_names())
