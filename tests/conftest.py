"""Fixtures and requirements that all tests share. In CI (ARMVIRT_CI=1) a missing tool or fetched
guest is a failure; elsewhere the test is skipped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from armvirt.hw.engine.native import LIBRARY

if TYPE_CHECKING:
    from build_firmware import Compiler

# How long an example takes depends on what else the machine does, which is no property of the code
# under test.
settings.register_profile("armvirt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("armvirt")

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("ARMVIRT_CI") == "1"
FETCHED = ROOT / ".cache" / "guests"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip on a developer's machine, fail in CI."""
    if IN_CI:
        pytest.fail(f"in CI this must be there: {reason}", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """The path of a program that the test needs (for example ``dtc``)."""
    path = shutil.which(name)
    if path is None:
        skip_or_fail(f"{name} is not installed")
    return path


def require_recorded_compiler() -> Compiler:
    """The cross compiler that built the committed guests. Another version skips the test."""
    import build_firmware

    require_tool("aarch64-linux-gnu-gcc")
    compiler = build_firmware.find_compiler()
    assert compiler is not None
    if compiler.version != build_firmware.recorded_compiler():
        pytest.skip(f"built by {build_firmware.recorded_compiler()}, this is {compiler.version}")
    return compiler


def require_native() -> None:
    """The native engine, without which tests that compare the engines have nothing to compare."""
    if not os.path.exists(LIBRARY):
        skip_or_fail("the native engine is not built")


def require_guest(name: str) -> Path:
    """A real guest that `make guests` fetches: ``Image``, ``initramfs.cpio`` or ``u-boot.bin``."""
    path = FETCHED / name
    if not path.exists():
        skip_or_fail(f"{name} is not fetched; run make guests")
    return path


def with_path() -> dict[str, str]:
    """The environment for a Python process that imports what this one can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def sampled(values: Iterable[object], share: int = 3) -> list[object]:
    """Parameters of a test: of ``share`` neighbours one runs in make test, the others only in make
    test-long."""
    return [
        pytest.param(value, marks=[pytest.mark.long] if number % share else [])
        for number, value in enumerate(values)
    ]
