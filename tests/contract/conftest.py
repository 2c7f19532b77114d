from __future__ import annotations

import pytest
from replays import PRIORITIZED, PRIORITIZED_WRITERS, REPLAYS, WRITERS, Exclusive, name_of


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
