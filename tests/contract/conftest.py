from __future__ import annotations

import os

import pytest
from replays import PRIORITIZED, PRIORITIZED_WRITERS, REPLAYS, WRITERS, Exclusive, name_of


@pytest.fixture(scope="session", autouse=True)
def actors() -> None:
    """Start the processes of sharded replays before a test counts those that it leaves behind."""
    if os.environ.get("DISKREPLAY_TEST_RAY"):
        import sharded

        sharded.start_actors(6)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests that do not hold for a kind."""

    def holds(item: pytest.Item) -> bool:
        values = (
            item.callspec.params.values()
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else ()
        )
        name = getattr(item, "originalname", "")
        return not any(isinstance(v, Exclusive) and name in v.skipped for v in values)

    items[:] = filter(holds, items)


@pytest.fixture(params=REPLAYS, ids=name_of)
def replay(request: pytest.FixtureRequest) -> Exclusive:
    return request.param


@pytest.fixture(params=WRITERS, ids=name_of)
def writer(request: pytest.FixtureRequest) -> Exclusive:
    return request.param


@pytest.fixture(params=PRIORITIZED, ids=name_of)
def prioritized(request: pytest.FixtureRequest) -> Exclusive:
    return request.param


@pytest.fixture(params=PRIORITIZED_WRITERS, ids=name_of)
def prioritized_writer(request: pytest.FixtureRequest) -> Exclusive:
    return request.param
