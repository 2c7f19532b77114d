"""Start the actors of shards: on the nodes that hold their stores, or spread over all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import diskreplay
from diskreplay.adapters.ray_shards.shard import Settings, Shard

_PLACE_SECONDS = 60.0
STRATEGIES = ("SPREAD", "STRICT_SPREAD", "PACK", "STRICT_PACK")


def numbers_here(directory: str) -> list[int]:
    """Return the numbers of the shards whose stores are on this node."""
    found = [path.name.removeprefix("shard-") for path in Path(directory).glob("shard-*")]
    return sorted(int(number) for number in found if number.isdigit())


def start(
    settings: list[Settings], placement: str | None, num_cpus: float
) -> tuple[list[Any], Any]:
    """Start an actor for each shard; return them, and their placement group if there is one."""
    actor = ray.remote(Shard)
    options: dict[str, Any] = {"num_cpus": num_cpus, "max_restarts": -1, "max_task_retries": 0}
    if placement is None:
        return [actor.options(**options).remote(each) for each in settings], None
    group = placement_group([{"CPU": num_cpus}] * len(settings), strategy=placement)
    try:
        if not group.wait(_PLACE_SECONDS):
            raise diskreplay.ArgumentError(
                f"{len(settings)} shards with num_cpus={num_cpus} and placement={placement!r} find "
                f"no room in the cluster within {_PLACE_SECONDS:.0f} seconds: give fewer CPUs, or "
                "another placement"
            )
        bundles = _bundles(settings, group)
        return [
            actor.options(
                **options,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=bundle
                ),
            ).remote(each)
            for each, bundle in zip(settings, bundles, strict=True)
        ], group
    except BaseException:
        remove_placement_group(group)
        raise


def _bundles(settings: list[Settings], group: Any) -> list[int]:
    """Return the bundle of each shard: one on the node that holds its store, else any other."""
    look = ray.remote(numbers_here)
    refs = [
        look.options(
            num_cpus=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=bundle
            ),
        ).remote(each.directory)
        for bundle, each in enumerate(settings)
    ]
    free = dict(enumerate(ray.get(refs)))
    found: dict[int, int] = {}
    for each in settings:
        bundle = next((b for b, numbers in free.items() if each.number in numbers), None)
        if bundle is not None:
            found[each.number] = bundle
            del free[bundle]
    for each in settings:
        if each.number not in found:
            found[each.number] = free.popitem()[0]
    return [found[each.number] for each in settings]


def stop(actors: list[Any], group: Any) -> None:
    """End the actors, whose stores are closed, and give back their place."""
    for each in actors:
        ray.kill(each)
    if group is not None:
        remove_placement_group(group)
