"""Where ``--at`` and ``run_until(pc=...)`` stop: symbols, clones, inlined functions, lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from debug.programs import build, needs_gcc

from armvirt.cli.main import main
from armvirt.errors import UserError
from armvirt.machine import Machine
from armvirt.places import marks, parse

pytestmark = needs_gcc


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gz"])
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("guest"), *request.param.split())


@pytest.fixture(scope="module")
def without_debug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plain"))


def where(guest: Path, text: str) -> str:
    """The symbol at which the guest is stopped."""
    with Machine(guest) as machine:
        assert machine.run_until(pc=text) is None
        assert machine.symbols is not None
        return machine.symbols.lookup(machine.board.vcpus[0].context.pc) or ""


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("start_c", "start_c"),
        ("start_c+4", "start_c+0x4"),
        ("start_c+0x4", "start_c+0x4"),
        ("a.c:init", "init.constprop.0"),
        ("b.c:init", "init"),
        ("sub/b.c:init", "init"),
        ("b.c:other", "other"),
    ],
)
def test_functions(guest: Path, text: str, symbol: str) -> None:
    assert where(guest, text) == symbol


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("put", "init.constprop.0"),  # first there, then in start_c
        ("a.c:put", "init.constprop.0"),
        ("helper", "init.constprop.0"),
        ("b.c:helper", "other"),
        ("a.c:17", "start_c"),
        ("sub/b.c:4", "init"),
        ("./a.c:9", "init.constprop.0"),
        ("h.h:3", "init.constprop.0"),
    ],
)
def test_inlined_functions_and_lines(guest: Path, text: str, function: str) -> None:
    assert where(guest, text).partition("+")[0] == function


def test_every_copy_is_a_place_to_stop(guest: Path) -> None:
    """The second copy of `put` is reached where the first has been left behind."""
    with Machine(guest) as machine:
        assert machine.symbols is not None
        assert machine.run_until(pc="put") is None
        first = machine.symbols.lookup(machine.board.vcpus[0].context.pc)
        start = machine.symbols.address_of("start_c")
        assert start is not None
        assert machine.run_until(insns=machine.insns + 1) is None
        assert machine.run_until(pc="put") is None
        second = machine.symbols.lookup(machine.board.vcpus[0].context.pc)
        assert (first or "").startswith("init") and (second or "").startswith("start_c")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("init", "init is ambiguous: 0x"),
        ("hlper", "the guest has no such symbol; did you mean helper"),
        ("helper+4", "helper is inlined (init.constprop.0"),
        ("c.c:3", "c.c:3: the debug information has no such file; did you mean"),
        ("a.c:1", "a.c:1 has no code; lines with code near it: "),
        ("a.c:9999", "a.c:9999 has no code; lines with code near it: "),
        ("a.c:main", "a.c:main: no such function; no function has that name"),
        ("c.c:init", "c.c:init: no such function; it is in a.c, sub/b.c"),
        ("start_c+x", "is not an offset"),
        ("", "the guest has no such symbol"),
    ],
)
def test_mistakes_say_what_there_is(guest: Path, text: str, says: str) -> None:
    with Machine(guest) as machine, pytest.raises(UserError) as caught:
        machine.run_until(pc=text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_candidates_have_their_files(guest: Path) -> None:
    with Machine(guest) as machine, pytest.raises(UserError) as caught:
        marks("init", machine)
    said = str(caught.value)
    assert (
        "(a.c)" in said
        and "(sub/b.c)" in said
        and said.endswith("give the address, or FILE:FUNCTION")
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("helper", "inlined functions and lines are known only with debug information"),
        ("a.c:9", "a.c:9: the guest has no debug information; build it with -g"),
        ("a.c:init", "a.c:init: the guest has no debug information"),
    ],
)
def test_without_debug_information(without_debug: Path, text: str, says: str) -> None:
    with Machine(without_debug) as machine, pytest.raises(UserError) as caught:
        marks(text, machine)
    assert says in str(caught.value)


def test_a_clone_is_found_by_the_name_of_its_function(without_debug: Path) -> None:
    """Without debug information nobody can say that it is of another file than the other `init`."""
    with Machine(without_debug) as machine:
        assert len(marks("init", machine).addresses) == 2


def test_times_are_no_places(guest: Path) -> None:
    with Machine(guest) as machine:
        assert parse("1.5ms", machine) == (1_500_000, None)
        assert parse("0", machine) == (0, None)
        assert parse("put", machine) == (None, "put")


def test_the_command_line(guest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(guest), "--intid", "vtimer", "--at", "helper"]) == 0
    assert " (init.constprop.0" in capsys.readouterr().out
    assert main(["explain", str(guest), "--intid", "vtimer", "--at", "hlper"]) == 2
    assert capsys.readouterr().err.startswith(
        "armvirt: --at hlper: the guest has no such symbol; did you mean helper"
    )
    assert main(["gic", str(guest), "--at", "kept"]) == 0
    said = capsys.readouterr().err
    assert "--at kept was not reached (it is inlined, too (other+0x" in said, (
        "its symbol is of a copy nobody calls"
    )
    assert main(["gic", str(guest), "--at", "never"]) == 0
    assert "--at never was not reached: " in capsys.readouterr().err
    assert main(["gic", str(guest), "--at", "0x50000000"]) == 0
    assert "--at 0x50000000 was not reached" in capsys.readouterr().err
