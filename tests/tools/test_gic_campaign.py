"""The campaign of random vGIC accesses: what it prints and how it ends."""

from __future__ import annotations

import gic_campaign
import gic_fuzz
import pytest
from gic_fuzz_its import ItsFuzzer


def test_a_campaign_tells_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert gic_campaign.campaign(1, 600, report=400) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 2 and "400 accesses, no law broken" in lines[0] and "600 accesses" in lines[1]
    )


def test_a_broken_law_ends_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(seed: int, accesses: int) -> None:
        raise gic_fuzz.LawError(f"seed {seed}, step 1: two lists")

    monkeypatch.setattr(gic_campaign, "run", broken)
    assert gic_campaign.main(["--seed", "9", "--millions", "0.001"]) == 1
    assert capsys.readouterr().out == "seed 9, step 1: two lists\n"


def test_machines_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(gic_campaign, "run", lambda seed, accesses: seeds.append(seed))
    assert gic_campaign.campaign(5, 50_000, report=20_000) == 0
    assert seeds == [5, 7, 9]


def test_one_machine_in_three_has_an_its() -> None:
    assert [type(gic_campaign.machine(seed)) is ItsFuzzer for seed in range(4)] == [
        True,
        False,
        False,
        True,
    ]
