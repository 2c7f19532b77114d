"""Transitions of the environments of Gymnasium, pushed into a buffer while they are stepped.

An episode ends with its true final observation, whatever resets the environment. Of a vector
environment the mode of its autoreset says where that is::

    NEXT_STEP   the next step resets: it is no transition, and is not stored
    SAME_STEP   the step returns the first observation of the next episode; the final one is in
                infos["final_obs"]
    DISABLED    the user resets, with reset(options={"reset_mask": ...})
"""

from __future__ import annotations

try:
    from diskreplay.adapters.gymnasium.recording import RecordTransitions
    from diskreplay.adapters.gymnasium.single import RecordEnvTransitions
    from diskreplay.adapters.gymnasium.vector import RecordVectorTransitions
except ImportError as error:
    if error.name not in ("gymnasium", "gymnasium.vector"):
        raise
    raise type(error)(
        "diskreplay.adapters.gymnasium needs gymnasium 1.1 or newer, which is not installed: "
        'pip install "diskreplay[gymnasium]"',
        name="gymnasium",
    ) from None

__all__ = ["RecordEnvTransitions", "RecordTransitions", "RecordVectorTransitions"]
