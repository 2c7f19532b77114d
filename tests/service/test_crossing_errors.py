"""An error of a served replay is raised by its client as the same class with the same sentence."""

from __future__ import annotations

import pytest

from diskreplay import DiskReplayError, StorageError, errors
from diskreplay.service.crossing_errors import error_from_plain, error_to_plain
from diskreplay.store.environment import MapFullError

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DiskReplayError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_keeps_its_class_and_its_sentence(kind: type[DiskReplayError]) -> None:
    found = error_from_plain(error_to_plain(kind("no", 7)))
    assert type(found) is kind
    assert found.args == ("no", 7)


def test_an_error_of_a_class_of_the_server_alone_is_one_of_its_base() -> None:
    found = error_from_plain(error_to_plain(MapFullError("full")))
    assert type(found) is StorageError
    assert str(found) == "full"
