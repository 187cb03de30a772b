"""Random polling loops, and some of our own, are the same run with skipping and without; planted
bugs are found.

ARMVIRT_POLL_LOOPS asks for another number of loops (``make poll-campaign``).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import sampled, skip_or_fail
from engine.conftest import KINDS, make_factory
from polling import poll_loops, poll_scenes, test_interval, test_loop
from polling.poll_bugs import BY_NAME, NATIVE_BUGS
from polling.poll_loops import Case
from polling.poll_scenes import SCENES, STEPS, Write

from armvirt.hw.engine import EngineFactory
from armvirt.hw.engine.native import NativeLibrary
from armvirt.hw.engine.waits import PolledWaits

CASES, LONGEST = {"native": 250, "portable": 24}, {"native": 40_000, "portable": 3000}
SEED = int(os.environ.get("ARMVIRT_POLL_SEED", "0"))
ASKED = os.environ.get("ARMVIRT_POLL_LOOPS")
TRIES = 200
"""Random cases after which a planted bug is not found."""

NEVER_SKIPPED = (poll_scenes.flags, poll_scenes.halves)


@pytest.mark.parametrize("kind", KINDS)
def test_random_loops(kind: str) -> None:
    factory = make_factory(kind)
    cases = int(ASKED) // (1 if kind == "native" else 40) if ASKED else CASES[kind]
    skipped = [poll_loops.check(factory, Case(SEED + n, LONGEST[kind])) for n in range(cases)]
    assert sum(each > 0 for each in skipped) > cases // 4, "too few of the loops are skipped"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scene", SCENES)
def test_scenes(kind: str, scene: Write) -> None:
    factory = make_factory(kind)
    skipped = sum(poll_scenes.check(factory, scene, step) for step in STEPS)
    assert (skipped > 0) is (scene not in NEVER_SKIPPED)


def rules() -> None:
    """The tests of the rules that take no arguments, and those of the intervals."""
    for module in (test_loop, test_interval):
        for name, function in vars(module).items():
            if name.startswith("test_") and not hasattr(function, "pytestmark"):
                function()


def scenes(factory: EngineFactory) -> None:
    for scene in SCENES:
        for step in STEPS:
            poll_scenes.check(factory, scene, step)


def find(factory: EngineFactory) -> None:
    scenes(factory)
    for seed in range(TRIES):
        poll_loops.check(factory, Case(seed))


@pytest.mark.parametrize("name", sampled(BY_NAME))
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PolledWaits, "_keep", lambda self, state, path: None
    )  # Python looks at each wait
    bug = BY_NAME[name]
    bug.plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        rules() if bug.kind == "rules" else find(make_factory("native"))


@pytest.mark.parametrize("name", sampled(NATIVE_BUGS))
def test_a_bug_planted_in_c_is_found(name: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        skip_or_fail("there is no C compiler")
    factory = make_factory("native")
    factory.native = NativeLibrary(str(NATIVE_BUGS[name].build(tmp_path, compiler)))
    with pytest.raises(AssertionError):
        find(factory)
