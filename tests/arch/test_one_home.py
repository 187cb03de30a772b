"""Each fact has one home: a fact of the Arm documents in `armvirt.arch`, any other constant in one
module."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest

import armvirt
from armvirt.arch.gic import OFFSETS
from armvirt.board.config import BoardConfig
from armvirt.hw.config import HostConfig

ROOT = Path(armvirt.__file__).parent
#: What names a register, a field, an interrupt or an instruction, at the beginning of a constant.
PREFIXES = (
    "HCR_", "MDCR_", "CPTR_", "SCTLR_", "SCR_", "MDSCR_", "PSTATE_", "SPSR_", "ICC_", "ICH_", "LR_", "VMCR_", "MISR_",
    "VTR_", "CNTV", "CNTP",
    "CNTK", "CNTH", "CNTF", "CTL_ENABLE", "CTL_IMASK", "CTL_ISTATUS", "PPI_", "EC_", "ISS_",
    "DFSC_", "VECTOR_", "VBAR_",
    "TTBR", "TCR_", "VTCR_", "VTTBR_", "PAR_", "ESR_", "FAR_EL", "ELR_", "MPIDR_", "ID_AA64", "TLBI_", "INSN_", "GICR_",
)  # fmt: skip
#: Of no Arm document: a limit of this program, and Unicorn's identifiers.
OWN = {"VECTOR_FAULT_LIMIT", "INSN_MRS", "INSN_MSR", "INSN_SYS"}
#: A fact of the module that says it: the version of its state.
PER_MODULE = {"STATE_VERSION"}
MEMORY_MAP = re.compile(r"board/\w+/memmap\.py")  # two boards may have the same address
#: Names of variables that hold a register of an Arm document: its fields are named in `armvirt.arch`.
REGISTERS = (
    "esr", "syndrome", "iss", "spsr", "pstate", "ps", "tcr", "vtcr", "ttbr", "sctlr", "mdscr", "tail_mdscr", "hcr",
    "mdcr", "vmcr", "lr", "cnthctl", "cntkctl", "controls", "ctl", "par", "mpidr", "vtr", "midr", "cpacr", "hpfar",
    "misr", "propbaser", "pendbaser", "baser", "clidr", "insn", "vmid",
)  # fmt: skip
#: The name of the encoding of a register.
ENCODING = re.compile(r"_EL[0-3]$")
#: The same in C: a shift or mask that is written as a number.
C_FIELD = re.compile(rf"(?:\b|_)(?:{'|'.join(REGISTERS)})\s*(?:>>|&|\|)\s*~?\(?(?:0x[0-9a-f]+|\d+)")
PPIS = {25, 26, 27, 28, 29, 30}
VECTORS = {0x200, 0x400}
FRAMES = ("GICD_", "GICR_", "GICC_", "GITS_")


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module, which several tests read."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules() -> Iterator[Path]:
    return (path for path in sorted(ROOT.rglob("*.py")) if path.name != "__main__.py")


def literals(node: ast.AST) -> set[int]:
    """The integers that are written in an expression."""
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and type(each.value) is int
    }


def computed(node: ast.AST) -> bool:
    """Whether a value has a name in it, and so is taken from elsewhere."""
    return any(isinstance(each, (ast.Name, ast.Attribute)) for each in ast.walk(node))


def assigned(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of every assignment to an upper-case name; of tuples, pair by pair."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        elif isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        else:
            continue
        for target in targets:
            for name, part in _pairs(target, value):
                if name.lstrip("_").isupper():
                    yield name, part


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple):
        parts = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
        for each, part in zip(target.elts, parts, strict=True):
            yield from _pairs(each, part)


def is_pattern(node: ast.AST) -> bool:
    """``insn & mask == value``, both written as numbers of an instruction's width."""
    if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.BinOp):
        return False
    sides = (literals(node.left.right), literals(node.comparators[0]))
    return isinstance(node.left.op, ast.BitAnd) and all(max(s, default=0) >> 24 for s in sides)


def is_field(node: ast.AST) -> bool:
    """``esr >> 5``, ``hcr & 1 << 3``: a field of a register by its number."""
    if not isinstance(node, ast.BinOp) or computed(node.right):
        return False
    name = getattr(node.left, "id", getattr(node.left, "attr", "")).lstrip("_")
    return isinstance(node.op, (ast.RShift, ast.BitAnd, ast.BitOr)) and name in REGISTERS


def _named(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def is_masked_shift(node: ast.AST) -> bool:
    """``lr >> LR_STATE_SHIFT & 3``, ``clidr >> 3 * level & 7``: the width of a field by its number."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitAnd):
        return False
    if not isinstance(node.left, ast.BinOp) or not isinstance(node.left.op, ast.RShift):
        return False
    by_name = _named(node.left.right).endswith("_SHIFT")
    of_register = _named(node.left.left).lstrip("_") in REGISTERS
    width = not computed(node.right) and literals(node.right) != {1}  # & 1 tests a bit
    return width and (of_register or by_name)


def is_placed(node: ast.AST) -> bool:
    """``vmid << 48``: a value at the position of its field, by its number."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.LShift)
        and not computed(node.right)
        and _named(node.left).lstrip("_") in REGISTERS
    )


def is_register_value(node: ast.AST) -> bool:
    """``system(VTCR_EL2, 1 << 31 | 30)``, ``build(EC.STEP_LOWER, 1 << 24)``: a value of a register
    by its number."""
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return False
    register, value = node.args[-2:]
    of_register = ENCODING.search(_named(register)) or ast.unparse(register).startswith("EC.")
    return bool(of_register) and isinstance(value, ast.BinOp) and bool(literals(value) - {0, 1})


def set_fields(node: ast.AST) -> Iterator[str]:
    """``state.cnthctl = 3``, ``{CNTHCTL_EL2: 0xFFF}``: a register or its mask by its number."""
    pairs: list[tuple[ast.expr | None, ast.expr]] = []
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        values = node.value.elts if isinstance(node.value, ast.Tuple) else []
        pairs = list(zip(node.targets[0].elts, values, strict=False))
    elif isinstance(node, ast.Assign):
        pairs = [(node.targets[0], node.value)]
    elif isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values, strict=True))
    for key, value in pairs:
        name = _named(key) if key is not None else ""
        register = isinstance(key, ast.Attribute) and name in REGISTERS
        number = isinstance(value, ast.Constant) and type(value.value) is int and value.value > 0
        if number and (register or (isinstance(node, ast.Dict) and ENCODING.search(name))):
            yield f"{name}: {ast.unparse(value)}"


def is_priority(node: ast.AST) -> bool:
    """``7 - prebits``, ``0xFF << 8 - bits``: a rule of binary points or priorities (IHI 0069 4.8)."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Sub):
        return False
    name = getattr(node.right, "id", getattr(node.right, "attr", ""))
    return literals(node.left) <= {7, 8} and not computed(node.left) and name.endswith("bits")


def encodings(tree: ast.AST) -> Iterator[str]:
    """What in a module spells out an encoding, a mask, an offset or a number of the Arm documents."""
    for name, value in assigned(tree):
        plain = name.lstrip("_")
        if plain.startswith(PREFIXES) and plain not in OWN and not computed(value):
            if literals(value):
                yield f"{name} = {ast.unparse(value)}"
        if ("PPI" in plain or "INTID" in plain) and literals(value) & PPIS:
            yield f"{name} = {ast.unparse(value)}"
    for node in ast.walk(tree):
        yield from set_fields(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sysreg":
            if len(node.args) == 5 and not any(computed(each) for each in node.args):
                yield ast.unparse(node)
        elif (
            is_pattern(node)
            or is_field(node)
            or is_priority(node)
            or is_masked_shift(node)
            or is_placed(node)
            or is_register_value(node)
            or (isinstance(node, ast.IfExp) and literals(node) >= VECTORS)
        ):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            if 0xD400_0000 <= node.value < 0xD700_0000:
                yield f"{node.value:#x}: the word of an instruction"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                timer = isinstance(key, ast.Constant) and key.value in ("vtimer", "ptimer")
                if timer and literals(value) & PPIS:
                    yield ast.unparse(node)


def offsets(tree: ast.AST) -> Iterator[str]:
    """The places that spell the offset of a GIC register: as a constant of the register's name, or
    beside the name in a dictionary, a tuple or a call."""
    for name, value in assigned(tree):
        found = {OFFSETS.get(frame + name.lstrip("_")) for frame in ("", *FRAMES)}
        if literals(value) & found:
            yield f"{name} = {ast.unparse(value)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = [[k, v] for k, v in zip(node.keys, node.values, strict=True) if k is not None]
        elif isinstance(node, ast.Tuple):
            pairs = [list(node.elts)]
        else:
            pairs = [list(node.args)] if isinstance(node, ast.Call) else []
        for parts in pairs:
            values = {each.value for each in parts if isinstance(each, ast.Constant)}
            names = [each for each in values if isinstance(each, str) and each in OFFSETS]
            # 0 beside a name is mostly something else: a shift, a default.
            if any(OFFSETS[name] and OFFSETS[name] in values for name in names):
                yield ast.unparse(node)


def outside_arch(find: Callable[[ast.AST], Iterator[str]]) -> list[str]:
    """What ``find`` finds in the modules outside `armvirt.arch`."""
    return [
        f"{path.relative_to(ROOT)}: {text}"
        for path in modules()
        if path.relative_to(ROOT).parts[0] != "arch"
        for text in find(parsed(path))
    ]


def test_offsets_of_the_gic_are_in_arch_alone() -> None:
    assert outside_arch(offsets) == [], "take these from armvirt.arch.gic.OFFSETS"


def test_encodings_are_in_arch_alone() -> None:
    assert outside_arch(encodings) == [], "take these from armvirt.arch"


def in_c(text: str) -> list[str]:
    """The fields of registers that a C source spells by number."""
    return C_FIELD.findall(text)


def test_fields_are_in_arch_alone_in_c() -> None:
    """native.c and shadow.h take the fields of registers from layout.h."""
    for name in ("native.c", "shadow.h"):
        assert not in_c((ROOT / "hw" / "engine" / name).read_text(encoding="utf-8")), name


@pytest.mark.parametrize(
    "text",
    [
        "rt = esr >> 5 & 31",
        "tsz = self.tcr >> 16",
        "if exit.esr & 1 << 8: pass",
        "write(mdscr | 1)",
        "HCR_TC = 1 << 10",
        "ICH_HCR_TC = 1 << 10",
        "least = 7 - self.prebits",
        "pmr = value & 0xFF << 8 - priority_bits",
        "enabled = _pstate & 0x80",
        "rt = state.insn & 31",
        "priority = lr >> LR_PRIORITY_SHIFT & 0xFF",
        "kind = clidr >> 3 * level & 7",
        "vttbr = BASE | self.vmid << 48",
        "system(VTCR_EL2, 1 << 31 | 2 << 16 | 30)",
        "STEP = build(EC.STEP_LOWER, 1 << 24 | 0x22)",
        "state.cnthctl, state.bits = 3, BITS",
        "MASKS = {arch.CNTHCTL_EL2: 0xFFF}",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert list(encodings(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "esr >> 5 & INSN_RT_MASK",
        "e->tail_mdscr | 1)",
        "(uint32_t)(high ? tcr >> 16 : tcr)",
        "x->esr & ~0x3",
    ],
)
def test_the_search_finds_in_c(text: str) -> None:
    assert in_c(text)


def _module(path: Path) -> ModuleType:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts).removesuffix(".__init__"))


def constants() -> dict[tuple[str, str], list[str]]:
    """The modules that assign a constant of a name and value: numbers, texts, bytes and frozen
    collections at the level of the module."""
    homes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in modules():
        tree = parsed(path)
        names = {name for name, _ in assigned(ast.Module(tree.body, [])) if name in _top(tree)}
        for name in sorted(names):
            value = getattr(_module(path), name, None)
            if isinstance(value, (int, float, str, bytes, tuple, frozenset, range, dict)):
                homes[name.lstrip("_"), repr(value)].append(str(path.relative_to(ROOT)))
    return homes


def _top(tree: ast.Module) -> set[str]:
    return {name for node in tree.body for name, _ in assigned(ast.Module([node], []))
            if isinstance(node, (ast.Assign, ast.AnnAssign))}  # fmt: skip


def test_a_constant_has_one_home() -> None:
    twice = [
        f"{name}: {', '.join(paths)}"
        for (name, _), paths in constants().items()
        if len(paths) > 1 and name not in PER_MODULE and not all(map(MEMORY_MAP.fullmatch, paths))
    ]
    assert not twice, "import these from one of their homes:\n" + "\n".join(twice)


#: Numbers that are equal by chance, by the names of their constants.
EQUAL_BY_CHANCE = {
    ("GICC_INTID", "KCTL_BITS", "LAST_SPECIAL", "SPURIOUS"): "10 bits: two registers, and INTID 1023",
    ("MAX_NEXT_EVENT", "SYSTEM_ENCODING", "VINTID_MASK"): "fields of 16 bits",
    ("BASER_PAGE_SIZE", "SH_INNER"): "bits 9:8 of GITS_BASER and of a descriptor",
    ("SEMIHOSTING_STACK", "STACK_ROOM"): "two stacks of 1 MiB",
    ("CODE_BUFFER", "CODE_BUFFER_MARGIN"): "the buffer of an engine, and room for other allocations",
}  # fmt: skip
#: Words in the names of round numbers that do not say which fact a number is.
GENERIC = {"SIZE", "FRAME", "OFFSET", "READ", "STEP", "RES1"}


def _is_round(value: int) -> bool:
    """A power of two or ten: a size or a limit. Two limits may be equal by chance."""
    return not value & value - 1 or str(value).strip("0") == "1"


def same_fact(value: int, one: str, other: str) -> bool:
    """Whether two constants of one value are one fact, written twice. Round numbers are if their
    names have a word in common."""
    if any({one, other} <= set(chance) for chance in EQUAL_BY_CHANCE):
        return False
    words = [{w.rstrip("S") for w in n.split("_") if len(w) > 3} - GENERIC for n in (one, other)]
    return bool(words[0] & words[1]) or not _is_round(value)


def written(path: Path) -> Iterator[tuple[str, int]]:
    """(name, value) of the integers that a module writes as constants, without a name in them."""
    tree = parsed(path)
    for name, part in assigned(ast.Module(tree.body, [])):
        value = getattr(_module(path), name, None) if name in _top(tree) else None
        if type(value) is int and not computed(part):
            yield name.lstrip("_"), value


def test_a_number_has_one_home_under_any_name() -> None:
    """A number of at least 0x100 is written in one module, whatever the names of its constants."""
    homes: dict[int, dict[str, str]] = defaultdict(dict)
    for path in modules():
        for name, value in written(path):
            if value >= 0x100 and not MEMORY_MAP.fullmatch(str(path.relative_to(ROOT))):
                homes[value][f"{path.relative_to(ROOT)}:{name}"] = name
    twice = [
        f"{value:#x}: {', '.join(places)}"
        for value, places in homes.items()
        if any(
            a.split(":")[0] != b.split(":")[0] and same_fact(value, places[a], places[b])
            for a, b in combinations(places, 2)
        )
    ]
    assert not twice, "import these from one of their homes:\n" + "\n".join(twice)


def test_an_exit_status_has_one_home() -> None:
    """The command line takes an exit status of `armvirt.errors` from there."""
    statuses = {value for _, value in written(ROOT / "errors.py")} | {
        part.value
        for _, part in _attributes(ROOT / "errors.py", "exit_status")
        if isinstance(part, ast.Constant)
    }
    again = [
        f"{path.relative_to(ROOT)}: {name} = {value}"
        for path in sorted((ROOT / "cli").rglob("*.py"))
        for name, value in written(path)
        if value in statuses and value > 64
    ]
    assert not again, "take these from armvirt.errors:\n" + "\n".join(again)


def _attributes(path: Path, name: str) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            yield name, node.value


@pytest.mark.parametrize(
    ("value", "one", "other"),
    [
        (0x800, "VECTORS_SIZE", "VECTOR_END"),
        (0xFF_FFFF, "AFFINITY", "MPIDR_AFF0_TO_2"),
        (0x3FF, "SPURIOUS", "OTHER"),
    ],
)
def test_two_names_of_one_fact_are_found(value: int, one: str, other: str) -> None:
    assert same_fact(value, one, other)
    assert not same_fact(0x800, "OVERRUN", "CHUNK")


def _defaults(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """(name, default) of the parameters of functions and the fields of classes in a module."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and each.value is not None:
                    yield _named(each.target), each.value
        elif isinstance(node, ast.FunctionDef):
            args, words = node.args, node.args.kwonlyargs
            plain = [*args.posonlyargs, *args.args]
            last = plain[len(plain) - len(args.defaults) :]
            yield from ((a.arg, d) for a, d in zip(last, args.defaults, strict=True))
            pairs = zip(words, args.kw_defaults, strict=True)
            yield from ((a.arg, d) for a, d in pairs if d is not None)


def test_the_default_of_a_setting_has_one_home() -> None:
    """`HostConfig` has the defaults of a host, `BoardConfig` the others; `Machine` reads these."""
    host, board = HostConfig._field_defaults, BoardConfig._field_defaults
    again = [
        f"{path}: {name} = {ast.unparse(value)}"
        for path, names in (
            ("board/config.py", host.keys() - {"counter_start"}),  # None: that of the host
            ("machine/machine.py", board.keys()),
        )
        for name, value in _defaults(ROOT / path)
        if name in names and not computed(value) and ast.unparse(value) != "None"
    ]
    again += [
        f"{path.relative_to(ROOT)}: {name} = {ast.unparse(value)}"
        for path in modules()
        if path != ROOT / "hw" / "config.py"
        for name, value in _defaults(path)
        if getattr(value, "value", None) == host["cpu"]
    ]
    assert not again, "read these from HostConfig or BoardConfig:\n" + "\n".join(again)


def test_the_limits_of_the_cpu_interface_are_in_arch() -> None:
    """No other module writes the numbers of list registers and priority bits that are possible."""
    limits = {(1, 16), (5, 7)}
    again = [
        f"{path}: {ast.unparse(node)}"
        for path in ("settings.py", "board/checks.py", "hw/ich.py")
        for node in ast.walk(parsed(ROOT / path))
        if isinstance(node, (ast.Call, ast.Tuple, ast.Compare))
        and tuple(sorted(literals(node) - {0})) in limits
    ]
    assert not again, "take these from armvirt.arch.gic:\n" + "\n".join(again)
