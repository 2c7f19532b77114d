"""OwnRun: how this opening of a store for writing describes itself in each commit."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from diskreplay.store.snapshot import Snapshot
from diskreplay.store.state import Identity, Run, State
from diskreplay.store.transaction import Transaction


class OwnRun:
    """The description of the run of this opening, which each of its commits writes anew."""

    def __init__(self) -> None:
        self.id = os.urandom(16).hex()
        self.number = -1  # known from the first commit on
        self._started = time.time()

    def committed(self, snapshot: Snapshot) -> Run | None:
        """Return what the store holds of this run, None before its first commit."""
        plain = snapshot.run(self.number) if self.number >= 0 else None
        run = None if plain is None else Run.parse(self.number, plain)
        return run if run is not None and run.id == self.id else None

    def of(self, snapshot: Snapshot, state: State) -> Run:
        """Return what the store holds of this run, or the description of a new run."""
        run = self.committed(snapshot)
        if run is None:
            self.number = state.runs
            run = replace(Run.new(state.count), id=self.id, started=self._started)
        return run

    def counted(self, state: State) -> dict[str, Any]:
        """Return the counts of a state with one commit of this run more."""
        runs = max(state.runs, self.number + 1)
        return {"commits": state.commits + 1, "runs": runs, "run": self.id}

    def put(self, txn: Transaction, state: State, run: Run, identity: Identity) -> bytes:
        """Put the state and the description of this run; return the sealed bytes of the state."""
        txn.put_run(self.number, run.to_plain())
        return txn.put_meta({"state": state.to_plain(identity)})["state"]
