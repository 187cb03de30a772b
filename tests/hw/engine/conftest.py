"""Fixtures of the engine's tests: every test that asks for ``factory`` runs on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import require_native

from armvirt.hw.engine import EngineFactory
from engine.bench import Bench

KINDS = ("native", "portable")


def make_factory(kind: str) -> EngineFactory:
    """Without a compiled native engine the test is skipped; in CI (ARMVIRT_CI=1) it fails."""
    if kind == "native":
        require_native()
    return EngineFactory(kind)


@pytest.fixture(scope="session", params=KINDS)
def factory(request: pytest.FixtureRequest) -> EngineFactory:
    return make_factory(request.param)


@pytest.fixture(scope="session")
def factories() -> list[EngineFactory]:
    """Both engines at once, for tests that compare them."""
    return [make_factory(kind) for kind in KINDS]


@pytest.fixture
def bench(factory: EngineFactory) -> Iterator[Callable[..., Bench]]:
    """Makes benches, and frees their engines after the test."""
    made: list[Bench] = []

    def make(*arguments: object, **options: object) -> Bench:
        made.append(Bench(factory, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
