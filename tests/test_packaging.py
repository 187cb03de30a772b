"""The build of the native engine: with a compiler, without one, with one that fails."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def setup_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, without the setup."""
    pytest.importorskip(
        "setuptools.command.bdist_wheel", reason="setuptools 77 is only needed to build"
    )
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("armvirt_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_built_and_loads(
    setup_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


FAILS = """#!/bin/sh
echo "In file included from native.c:1:" >&2
echo "shadow.h:7: fatal error: stdint.h: No such file" >&2
exit 1
"""


def failing_compiler(folder: Path) -> str:
    path = folder / "cc-that-fails"
    path.write_text(FAILS)
    path.chmod(0o755)
    return str(path)


def test_all_that_the_compiler_said_is_kept(
    setup_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", failing_compiler(tmp_path))
    said = setup_script.compile_library(tmp_path / "_native.so").splitlines()
    assert said[0].endswith("cc-that-fails failed: shadow.h:7: fatal error: stdint.h: No such file")
    assert said[1].startswith("$ ") and "-fPIC" in said[1]
    assert said[2:] == [
        "In file included from native.c:1:",
        said[0].partition(": ")[2],
        "exit status 1",
    ]


def build_native(script: Any, folder: Path) -> Any:
    """A build_ext command that builds into ``folder``, the source tree left alone."""
    from setuptools import Distribution, Extension

    script.LOG = str((folder / "source.log").relative_to("/"))
    distribution = Distribution({"ext_modules": [Extension(script.NAME, [script.SOURCE])]})
    command = script.BuildNative(distribution)
    command.build_lib, command.inplace, command.extensions = (
        str(folder),
        False,
        distribution.ext_modules,
    )
    command._place = lambda name: folder / Path(name).name
    command.get_ext_filename = lambda fullname: (
        "no-such-folder/" + fullname.rpartition(".")[2] + ".so"
    )
    return command


def test_a_build_that_fails_leaves_the_reason_and_no_library(
    setup_script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("ARMVIRT_NATIVE", raising=False)
    monkeypatch.setenv("CC", failing_compiler(tmp_path))
    (tmp_path / "_native.so").write_bytes(b"of an earlier build")
    command = build_native(setup_script, tmp_path)
    command.run()
    assert "stdint.h: No such file" in (tmp_path / "source.log").read_text()
    assert not (tmp_path / "_native.so").exists()
    assert "the portable engine will be used" in capsys.readouterr().out
    monkeypatch.setenv("ARMVIRT_NATIVE", "1")
    with pytest.raises(Exception, match="ARMVIRT_NATIVE=1, but the native engine was not built"):
        command.run()


def test_the_native_engine_can_be_left_out(
    setup_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMVIRT_NATIVE", "0")
    build_native(setup_script, tmp_path).run()
    assert (tmp_path / "source.log").read_text() == "left out by ARMVIRT_NATIVE=0\n"


def test_documents_and_changelog_are_in_the_package() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert data["tool"]["setuptools"]["data-files"] == {
        "share/doc/armvirt": ["README.md", "CHANGELOG.md", "docs/*.md", "docs/*.svg"]
    }
    from armvirt import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_readme_calls_stable_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## What is stable") : readme.index("## Development")]
    modules = re.findall(r"`(armvirt(?:\.\w+)*)`", section.replace("`armvirt.toml`", ""))
    assert len(modules) > 5
    for name in modules:
        assert importlib.import_module(name).__doc__, name


def test_no_extra_is_dead() -> None:
    """What an extra installs is imported somewhere, or is a tool that the Makefile or CI runs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(extras) == {"pytest", "dev"}
    assert not [name for name in extras["pytest"] if "pytest" not in name]


def test_the_package_has_what_it_needs_at_run_time() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = data["tool"]["setuptools"]["package-data"]["armvirt"]
    assert {"guests/*.elf", "guests/*.toml", "hw/engine/native.c", "py.typed"} <= set(patterns)
    assert data["project"]["scripts"] == {"armvirt": "armvirt.cli.main:main"}
    assert data["project"]["entry-points"]["pytest11"] == {"armvirt": "armvirt.pytest_plugin"}


def test_every_source_file_is_in_a_package() -> None:
    folders = {path.parent for path in (ROOT / "armvirt").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
