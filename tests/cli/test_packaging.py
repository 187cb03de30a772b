"""The build of the native engine: with a compiler, without one, with one that fails."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def setup_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, without the setup."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools is only needed to build")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("armvirt_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_built_and_loads(setup_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import require_tool

    require_tool("cc")
    monkeypatch.delenv("CC", raising=False)
    output = tmp_path / "deep" / "_native.so"
    assert setup_script.compile_library(output) == ""
    ctypes.CDLL(str(output)).av_abi()


@pytest.mark.parametrize(
    ("compiler", "problem"),
    [("/bin/false", "/bin/false failed"), ("/none/cc -m64", "No such file"), ("", "no C compiler")],
)
def test_what_goes_wrong_is_said(
    setup_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, problem: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert problem in setup_script.compile_library(tmp_path / "_native.so")
    assert not (tmp_path / "_native.so").exists()


def test_the_package_has_what_it_needs_at_run_time() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = data["tool"]["setuptools"]["package-data"]["armvirt"]
    assert {"guests/*.elf", "guests/*.toml", "hw/engine/native.c", "py.typed"} <= set(patterns)
    assert data["project"]["scripts"] == {"armvirt": "armvirt.cli.main:main"}
    assert data["project"]["entry-points"]["pytest11"] == {"armvirt": "armvirt.pytest_plugin"}


def test_every_source_file_is_in_a_package() -> None:
    folders = {path.parent for path in (ROOT / "armvirt").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
