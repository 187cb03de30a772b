"""Polled waits at a terminal: skipped, and as long as on the wall clock. The clock is the test's."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import require_native
from waiting_guest import BASE, MS, image, waits

from armvirt.machine import Machine, pacing

NS_PER_MS = 1_000_000


class WallClock:
    """Advances by ``step`` s at each reading, and as long as somebody sleeps."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.slept = 0.0, step, 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= pacing.SLICE_S
        self.now += seconds
        self.slept += seconds


def run(tmp_path: Path, number: int, ticks: int, **options: object) -> tuple[Machine, object]:
    path = image(waits(number, ticks), tmp_path)
    machine = Machine(path, load_addr=BASE, memory="64M", **options)  # type: ignore[arg-type]
    with machine:
        return machine, machine.run()._replace(recent=())


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock(step=0.0)
    monkeypatch.setattr(pacing, "time", clock)
    return clock


@pytest.mark.parametrize(("number", "ms"), [(1, 200), (40, 5)])
def test_a_polled_wait_takes_its_time(
    tmp_path: Path, wall: WallClock, number: int, ms: int
) -> None:
    require_native()
    paced, result = run(tmp_path, number, ms * MS, pace=True)
    assert paced.skipped > 0.95 * number * ms * NS_PER_MS
    assert wall.slept * 1e9 == pytest.approx(paced.skipped)
    _, plain = run(tmp_path, number, ms * MS)
    assert result == plain


def test_the_time_of_the_proof_is_no_delay(tmp_path: Path, wall: WallClock) -> None:
    """A part of a wait that was skipped late is followed by a shorter sleep."""
    wall.step = 0.002
    paced, _ = run(tmp_path, 1, 200 * MS, pace=True)
    assert wall.now * 1e9 == pytest.approx(paced.skipped, rel=0.1)


def test_without_pace_nobody_sleeps(tmp_path: Path, wall: WallClock) -> None:
    run(tmp_path, 1, 200 * MS)
    assert wall.slept == 0
