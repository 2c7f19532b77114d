"""Start the actors of shards: each on the node that holds its store, or spread over all.

A store is on the disk of one node. So an actor is bound to the address of its node, a resource that
Ray gives to each: while the node is gone it waits, whatever room others have, and it is restarted
when a node of that address is back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

import diskreplay
from diskreplay.adapters.ray_shards.messages import Settings
from diskreplay.adapters.ray_shards.shard import Shard

_PLACE_SECONDS = 60.0
_SHARE = 0.001  # of the address of a node, of which each has 1.0
STRATEGIES = ("SPREAD", "STRICT_SPREAD", "PACK", "STRICT_PACK")


def stores_here(directory: str) -> dict[int, tuple[int, int]]:
    """Return the numbers of the shards whose stores are on this node, and which file each is."""
    found = {}
    for path in Path(directory).glob("shard-*/diskreplay.json"):
        number = path.parent.name.removeprefix("shard-")
        if number.isdigit():
            file = path.stat()
            found[int(number)] = (file.st_ino, file.st_ctime_ns)
    return found


def start(
    settings: list[Settings], placement: str | None, num_cpus: float
) -> tuple[list[Any], Any]:
    """Start an actor for each shard; return them, and their placement group if there is one."""
    actor = ray.remote(Shard)
    options: dict[str, Any] = {"num_cpus": num_cpus, "max_restarts": -1, "max_task_retries": 0}
    if placement is None:
        return [actor.options(**options).remote(each) for each in settings], None
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in _nodes()}
    stores = _stores(settings[0].directory)
    pins = [place_of(each, stores) for each in settings]
    group = _group(pins, num_cpus, placement)
    if None in pins:
        nodes = placement_group_table(group)["bundles_to_node_id"]
        remove_placement_group(group)
        pins = [addresses[nodes[bundle]] for bundle in range(len(settings))]
        group = _group(pins, num_cpus, "PACK")
    try:
        return [
            actor.options(
                **options,
                resources={f"node:{pin}": _SHARE},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=bundle
                ),
            ).remote(each)
            for bundle, (each, pin) in enumerate(zip(settings, pins, strict=True))
        ], group
    except BaseException:
        remove_placement_group(group)
        raise


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call, unused-ignore]
    return [node for node in nodes if node["Alive"]]


def _stores(directory: str) -> dict[str, dict[int, tuple[int, int]]]:
    """Return the stores of shards by the address of their node."""
    look = ray.remote(stores_here)
    refs = {
        node["NodeManagerAddress"]: look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)
        ).remote(directory)
        for node in _nodes()
    }
    return dict(zip(refs, ray.get(list(refs.values())), strict=True))


def place_of(settings: Settings, stores: dict[str, dict[int, tuple[int, int]]]) -> str | None:
    """Return the address of the node that holds a store; None if none does, or several do."""
    files = {at: found[settings.number] for at, found in stores.items() if settings.number in found}
    if len(set(files.values())) > 1:
        raise diskreplay.MismatchError(
            f"{settings.path} is on the nodes {', '.join(sorted(files))} (expected one): move away "
            "those that are copies"
        )
    return next(iter(files)) if len(files) == 1 else None


def _group(pins: list[str | None], num_cpus: float, strategy: str) -> Any:
    """Return a placement group with a bundle for each shard, on the nodes of the addresses."""
    bundles = [
        {"CPU": num_cpus} if pin is None else {"CPU": num_cpus, f"node:{pin}": _SHARE}
        for pin in pins
    ]
    group = placement_group(bundles, strategy=strategy if None in pins else "PACK")
    if not group.wait(_PLACE_SECONDS):
        remove_placement_group(group)
        raise diskreplay.ArgumentError(
            f"{len(pins)} shards with num_cpus={num_cpus} and placement={strategy!r} find no room "
            f"in the cluster within {_PLACE_SECONDS:.0f} seconds: give fewer CPUs, or another "
            "placement"
        )
    return group


def stop(actors: list[Any], group: Any) -> None:
    """End the actors, whose stores are closed, and give back their place."""
    for each in actors:
        ray.kill(each)
    if group is not None:
        remove_placement_group(group)
