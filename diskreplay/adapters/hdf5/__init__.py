"""Datasets in HDF5: those of d3rlpy, of its first version, and of D4RL, with h5py alone.

::

    d3rlpy       observations_0, actions_0, rewards_0, terminated_0, observations_1, ...: a set for
                 each episode; columns, num_episodes, version
    MDPDataset   observations, actions, rewards, terminals, episode_terminals: a row for each step
    D4RL         observations, actions, rewards, terminals, timeouts, and mostly next_observations

Of d3rlpy an episode that is not terminated has a last row that is no transition, since there is no
observation after it.
"""

from __future__ import annotations

import importlib

try:
    importlib.import_module("h5py")
except ModuleNotFoundError as error:
    if error.name != "h5py":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.hdf5 needs h5py, which is not installed: "
        'pip install "diskreplay[hdf5]"',
        name="h5py",
    ) from None

from diskreplay.adapters.hdf5.reading import from_hdf5
from diskreplay.adapters.hdf5.writing import to_hdf5

__all__ = ["from_hdf5", "to_hdf5"]
