"""The engine checks what it assumes about libunicorn and native.c, and refuses a library that
differs."""

from __future__ import annotations

import ctypes as C
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import skip_or_fail

import armvirt.hw.engine as package
from armvirt.errors import EngineError, UserError
from armvirt.hw.engine import EngineFactory, abi, layout, native
from armvirt.hw.engine.state import (
    Action,
    Callback,
    EngineState,
    EventRecord,
    Leave,
    MarkedBlock,
    Shadow,
    What,
)
from engine.conftest import make_factory

calibrate = importlib.import_module(
    "armvirt.hw.engine.calibrate"
)  # the package has a function of that name
NATIVE_C = Path(package.__file__).with_name("native.c")
LAYOUT_H = Path(package.__file__).with_name("layout.h")
MODELS = sorted(abi.CPU_MODELS)


@pytest.fixture(scope="module")
def lib() -> abi.Library:
    return abi.Library()


# Calibration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_calibration_finds_both_records(lib: abi.Library, model: str) -> None:
    found = calibrate.calibrate(lib, abi.CPU_MODELS[model])
    assert 0 < found.syndrome < found.context_size - 20 and found.syndrome % 4 == 0
    assert 0 < found.exclusive < found.context_size - 16 and found.exclusive % 8 == 0
    assert found == calibrate.calibrate(lib, abi.CPU_MODELS[model]), "and finds them again"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "_HVC",
            (0x1A5B, 0x25A5),
            "0 places for the exception record and 1 for the exclusive monitor",
        ),
        ("_MAGIC", 0x5EED, "1 places for the exception record and 0 for the exclusive monitor"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(
    lib: abi.Library, monkeypatch: pytest.MonkeyPatch, name: str, value: object, words: str
) -> None:
    """The program and what is looked for no longer agree: nothing is guessed."""
    if name == "_MAGIC":
        set_up = calibrate._set_up
        monkeypatch.setattr(
            calibrate, "_set_up", lambda scratch: (set_up(scratch), monkeypatch.setattr(*spoil))[0]
        )
        spoil = (calibrate, name, value)
    else:
        monkeypatch.setattr(calibrate, name, value)
    with pytest.raises(EngineError, match=f"does not fit: {words}.*install unicorn==2.1.4"):
        calibrate.calibrate(lib, abi.CPU_MODELS["cortex-a72"])


def test_a_record_that_is_found_twice_is_refused(
    lib: abi.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = calibrate._places
    monkeypatch.setattr(
        calibrate, "_places", lambda blob, pattern, step: places(blob, pattern, step) | {0, 8}
    )
    monkeypatch.setattr(calibrate, "_is_fault_record", lambda blob, at: True)
    with pytest.raises(
        EngineError, match="3 places for the exception record and 3 for the exclusive monitor"
    ):
        calibrate.calibrate(lib, abi.CPU_MODELS["cortex-a72"])


def test_an_exception_that_does_not_come_is_refused(
    lib: abi.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without HCE there is no HVC exit to learn from."""
    wait_forever = (0xD503201F, 0xD503207F, 0xD503201F, 0xD503207F, 0xD503207F)  # nop, wfi
    monkeypatch.setattr(calibrate, "_PROGRAM", wait_forever)
    with pytest.raises(EngineError):
        calibrate.calibrate(lib, abi.CPU_MODELS["cortex-a72"])


def test_places_are_aligned() -> None:
    blob = b"\0ABCD\0\0\0ABCDABCD"
    assert calibrate._places(blob, b"ABCD", 4) == {8, 12} and calibrate._places(
        blob, b"ABCD", 1
    ) == {1, 8, 12}
    assert calibrate._places(blob, b"XY", 1) == set() and calibrate._places(b"AAAA", b"AA", 1) == {
        0,
        1,
        2,
    }


# The library ------------------------------------------------------------------------------------


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "SUPPORTED_VERSION", (2, 0))
    with pytest.raises(
        EngineError, match="unicorn 2.1.4 is not the calibrated one; run: pip install unicorn=="
    ):
        abi.Library()


def test_a_missing_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "FUNCTIONS", ("uc_open", "uc_levitate"))
    with pytest.raises(EngineError, match=r"has no uc_levitate; armvirt needs unicorn==2.1.4"):
        abi.Library()


def test_a_missing_package_is_an_error_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"not installed; run: pip install unicorn==2.1.4"):
        abi.library_path()


@pytest.mark.parametrize(
    ("kind", "model", "words"), [("fast", "cortex-a72", "engine"), ("auto", "m1", "CPU model")]
)
def test_unknown_choices_are_the_users(kind: str, model: str, words: str) -> None:
    with pytest.raises(UserError, match=f"unknown {words} .*choose"):
        EngineFactory(kind, model)


def test_failures_of_the_core_have_their_reason(lib: abi.Library) -> None:
    with pytest.raises(EngineError, match=r"unicorn: map 0x123: .*UC_ERR_ARG"):
        engine = EngineFactory("portable").create()
        engine.map_memory(0x123, 0x1000, 0)
    with pytest.raises(EngineError, match=r"unicorn: read 0x[0-9a-f]*: .*UC_ERR"):
        engine.read_physical(0x9999_0000, 4)
    engine.close()


CONSTANTS = {
    "ARCH_ARM64": "UC_ARCH_ARM64", "MODE_ARM": "UC_MODE_ARM", "HOOK_INTR": "UC_HOOK_INTR", "HOOK_INSN": "UC_HOOK_INSN",
    "HOOK_BLOCK": "UC_HOOK_BLOCK", "HOOK_MEM_READ_PROT": "UC_HOOK_MEM_READ_PROT", "HOOK_EDGE": "UC_HOOK_EDGE_GENERATED",
    "INSN_MRS": "UC_ARM64_INS_MRS", "INSN_MSR": "UC_ARM64_INS_MSR", "INSN_SYS": "UC_ARM64_INS_SYS",
    "CTL_PAGE_SIZE": "UC_CTL_UC_PAGE_SIZE", "CTL_USE_EXITS": "UC_CTL_UC_USE_EXITS", "CTL_CPU_MODEL": "UC_CTL_CPU_MODEL",
    "CTL_TB_REQUEST": "UC_CTL_TB_REQUEST_CACHE", "CTL_TCG_BUFFER_SIZE": "UC_CTL_TCG_BUFFER_SIZE",
    "CTL_TB_REMOVE": "UC_CTL_TB_REMOVE_CACHE", "CTL_TB_FLUSH": "UC_CTL_TB_FLUSH", "CTL_TLB_FLUSH": "UC_CTL_TLB_FLUSH",
    "PROT_READ": "UC_PROT_READ", "PROT_WRITE": "UC_PROT_WRITE", "PROT_EXEC": "UC_PROT_EXEC", "PROT_ALL": "UC_PROT_ALL",
    "R_X0": "UC_ARM64_REG_X0", "R_X29": "UC_ARM64_REG_X29", "R_X30": "UC_ARM64_REG_X30", "R_SP": "UC_ARM64_REG_SP",
    "R_XZR": "UC_ARM64_REG_XZR", "R_Q0": "UC_ARM64_REG_Q0", "R_PC": "UC_ARM64_REG_PC",
    "R_PSTATE": "UC_ARM64_REG_PSTATE", "R_CP": "UC_ARM64_REG_CP_REG", "R_FPCR": "UC_ARM64_REG_FPCR",
    "R_FPSR": "UC_ARM64_REG_FPSR",
    "R_ELR_EL1": "UC_ARM64_REG_ELR_EL1", "R_SP_EL0": "UC_ARM64_REG_SP_EL0", "R_SP_EL1": "UC_ARM64_REG_SP_EL1",
    "R_ESR_EL1": "UC_ARM64_REG_ESR_EL1", "R_FAR_EL1": "UC_ARM64_REG_FAR_EL1", "R_VBAR_EL1": "UC_ARM64_REG_VBAR_EL1",
    "R_TTBR0_EL1": "UC_ARM64_REG_TTBR0_EL1", "R_TTBR1_EL1": "UC_ARM64_REG_TTBR1_EL1",
}  # fmt: skip


def unicorn_constants() -> dict[str, int]:
    arm64 = pytest.importorskip("unicorn.arm64_const")
    common = pytest.importorskip("unicorn.unicorn_const")
    return {**vars(common), **vars(arm64)}


def test_constants_are_those_of_the_package() -> None:
    theirs = unicorn_constants()
    assert {name: getattr(abi, name) for name in CONSTANTS} == {
        name: theirs[key] for name, key in CONSTANTS.items()
    }
    names = {n for n in vars(abi) if re.match("(ARCH|MODE|HOOK|INSN|CTL|PROT|R)_", n)}
    assert names == set(CONSTANTS), "every identifier of abi.py is in the table above"
    assert [abi.x_register(n) for n in range(31)] == [
        theirs[f"UC_ARM64_REG_X{n}"] for n in range(31)
    ]
    assert abi.x_register(31) == theirs["UC_ARM64_REG_XZR"]
    assert {f"UC_CPU_ARM64_{model[7:].upper()}" for model in MODELS} < set(theirs)
    assert all(
        theirs[f"UC_CPU_ARM64_{m[7:].upper()}"] == number for m, number in abi.CPU_MODELS.items()
    )


# native.c ---------------------------------------------------------------------------------------


def enumerated() -> dict[str, int]:
    """Every ``NAME = number`` of the enums of layout.h, and its numeric #defines."""
    text = LAYOUT_H.read_text()
    found = {
        name: int(value, 0)
        for body in re.findall(r"enum \w*\s*\{(.*?)\}", text, re.DOTALL)
        for name, value in re.findall(r"(\w+) = (\w+)", body)
    }
    return found | {
        n: int(v, 0) for n, v in re.findall(r"#define (\w+) (0x[0-9a-f]+|\d+)u?\s", text)
    }


def test_the_generated_header_is_current() -> None:
    assert LAYOUT_H.read_text() == layout.header(), "run: python tools/layout_header.py"


def test_native_has_the_same_constants() -> None:
    native_c = enumerated()
    shared = {name for name in CONSTANTS if name in native_c}
    assert {"R_PC", "R_CP", "CTL_TB_REMOVE"} <= shared and len(shared) >= 17
    assert {name: native_c[name] for name in shared} == {
        name: getattr(abi, name) for name in shared
    }
    assert native_c["PROT_READ_"] == abi.PROT_READ and native_c["PROT_EXEC_"] == abi.PROT_EXEC
    assert native_c["ABI_VERSION"] == native.ABI_VERSION


def test_native_has_the_same_enums() -> None:
    native_c = enumerated()
    assert {f"LEAVE_{leave.name}": int(leave) for leave in Leave}.items() <= native_c.items()
    assert {f"WHAT_{what.name}": int(what) for what in What}.items() <= native_c.items()
    assert {
        f"CB_{callback.name}": int(callback) for callback in Callback
    }.items() <= native_c.items()
    actions = {name: value for name, value in vars(Action).items() if name.isupper() and value}
    assert {f"ACT_{name}": value for name, value in actions.items()}.items() <= native_c.items()


def layout_by_compiler(folder: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of every field of the structures, as a C compiler has them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        skip_or_fail("no C compiler")
    lines = [
        f'printf("{kind}.{name} %zu %zu\\n", offsetof({kind}, {name}), sizeof((({kind} *)0)->{name}));'
        for kind, structure in STRUCTURES.items()
        for name, *_ in structure._fields_
    ]
    lines += [f'printf("{kind} 0 %zu\\n", sizeof({kind}));' for kind in STRUCTURES]
    source = folder / "layout.c"
    source.write_text(
        f'#include <stdio.h>\n#include "{NATIVE_C}"\nint main(void) {{\n{chr(10).join(lines)}\n}}\n'
    )
    subprocess.run([compiler, "-w", "-o", folder / "layout", source], check=True)
    text = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    return {
        name: (int(offset), int(size))
        for name, offset, size in (line.split() for line in text.splitlines())
    }


STRUCTURES = {"engine": EngineState, "event": EventRecord, "shadow": Shadow, "marked": MarkedBlock}


def test_the_state_has_one_layout(tmp_path: Path) -> None:
    """Field by field, not only the size: two swapped fields would keep it."""
    theirs = layout_by_compiler(tmp_path)
    ours = {kind: (0, C.sizeof(structure)) for kind, structure in STRUCTURES.items()}
    for kind, structure in STRUCTURES.items():
        for name, *_ in structure._fields_:
            field = getattr(structure, name)
            ours[f"{kind}.{name}"] = (field.offset, field.size)
    assert ours == theirs


def test_the_built_library_is_the_present_one() -> None:
    factory = make_factory("native")
    assert factory.native is not None
    assert factory.native.lib.av_abi() == native.ABI_VERSION << 16 | C.sizeof(EngineState) & 0xFFFF


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_factory("native")
    monkeypatch.setattr(native, "ABI_VERSION", 99)
    with pytest.raises(
        EngineError,
        match=r"_native\.so was built for another version of armvirt; reinstall armvirt",
    ):
        native.NativeLibrary()


def test_a_library_that_is_not_built_is_an_error_only_if_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = str(Path(native.LIBRARY).with_name("_missing.so"))
    monkeypatch.setattr(native, "LIBRARY", missing)
    monkeypatch.setattr(native.NativeLibrary.__init__, "__defaults__", (missing,))
    assert EngineFactory("auto").kind == "portable"
    with pytest.raises(
        EngineError, match="not built; install with a C compiler, or use --engine portable"
    ):
        EngineFactory("native")


def test_auto_takes_native_where_it_is_built() -> None:
    make_factory("native")
    assert EngineFactory().kind == "native" == EngineFactory().create().kind
    assert EngineFactory("portable").create().kind == "portable"


def test_describe() -> None:
    words = package.describe()
    assert words["unicorn"] == "2.1.4" and words["engine"] in ("native", "portable")
    assert (
        re.fullmatch(r"syndrome at \d+, monitor at \d+", words["calibration"])
        and Path(words["library"]).exists()
    )
