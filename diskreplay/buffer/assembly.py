"""Assembly: from the arguments of a buffer to a guarded replica of its store."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from diskreplay.aliases import PathLike
from diskreplay.buffer.expected_fields import ExpectedFields
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.replica import Parts, Replica
from diskreplay.buffer.rows import Rows
from diskreplay.buffer.shared_writer import SharedWriter
from diskreplay.buffer.sizing import estimate_of, warn_of_disk
from diskreplay.buffer.window_layout import DEFAULT_WINDOW_BYTES
from diskreplay.buffer.writer import Writer
from diskreplay.episodes import Links
from diskreplay.errors import ArgumentError, DamageError, MismatchError, printable
from diskreplay.records import KEPT_ROWS, codec_named, schema_facts, with_features
from diskreplay.sampling import (
    Distribution,
    DrawBasis,
    PrioritySettings,
    RandomStream,
    Usual,
    checked_distribution,
    new_seed,
)
from diskreplay.schema import LogOptions, Schema, SchemaLike, fields_of, missing_in
from diskreplay.store import (
    Identity,
    RunSettings,
    Snapshot,
    State,
    Store,
    raising_own_errors,
    replacing,
)
from diskreplay.validation import (
    ACCESS,
    check_word,
    checked_capacity,
    checked_keep_rows,
    checked_path,
    whole_number,
)
from diskreplay.wording import count_of

_LOG = "log"  # the place of the observations in the identity of a store that began without fields
_log = logging.getLogger("diskreplay")
_log.addHandler(logging.NullHandler())  # the program decides whether messages are shown


@dataclass(frozen=True)
class Options:
    """The checked arguments that both kinds of buffers have, see ReplayBuffer."""

    capacity: int
    seed: int | None = None
    path: PathLike | None = None
    schema: SchemaLike | None = None
    access: str = "exclusive"
    durability: str = "system"
    commit_interval: float = 1.0
    window_bytes: int = DEFAULT_WINDOW_BYTES
    on_damage: str = "raise"
    if_exists: str = "resume"
    observations: str | None = None
    frame_axis: int | None = None
    codec: str | None = None
    keep_rows: int = 0
    sampler: Distribution | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "capacity": checked_capacity(self.capacity),
            "window_bytes": whole_number("window_bytes", self.window_bytes, at_least=0),
        }
        checked["keep_rows"] = checked_keep_rows(self.keep_rows, checked["capacity"])
        if self.seed is not None:
            checked["seed"] = whole_number("seed", self.seed, at_least=0)
        checked_distribution(self.sampler)
        check_word("access", self.access, ACCESS)
        check_word("on_damage", self.on_damage, ("raise", "skip"))
        check_word("if_exists", self.if_exists, ("resume", "fail", "replace"))
        checked["commit_interval"] = self.run_settings.commit_interval
        checked |= self.log_options._asdict()
        if self.path is None and self.access != "exclusive":
            raise ArgumentError(f"access={self.access!r} needs the path of a store (found none)")
        if self.access == "read" and self.if_exists != "resume":
            raise ArgumentError(
                f"if_exists={self.if_exists!r} needs a buffer that writes (found access='read'): "
                "leave it out"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def log_options(self) -> LogOptions:
        """The place of the observations."""
        return LogOptions.checked(self.observations, self.frame_axis, self.codec)

    @property
    def run_settings(self) -> RunSettings:
        """The settings of both kinds of buffers that a store keeps."""
        return RunSettings(self.durability, self.commit_interval)


@raising_own_errors
def open_or_create(options: Options, priorities: PrioritySettings | None) -> Guard:
    """Open the store of these options; make it first where there is none.

    priorities:  the settings of a prioritized buffer; None makes a uniform one
    """
    expected = {} if options.schema is None else fields_of(options.schema)
    fields = ExpectedFields(
        expected, all_given=isinstance(options.schema, Schema), log=options.log_options
    )
    for codec in {options.codec, *(field.codec for field in expected.values())}:
        codec_named(codec)  # NotInstalledError here, before anything is made
    kind = "uniform" if priorities is None else "prioritized"
    _check_sampler(options, kind)
    if options.path is None:
        path = Path(tempfile.mkdtemp(prefix="diskreplay-"))
        durability = "process"  # a temporary store does not outlive its process
    else:
        path, durability = checked_path(options.path), options.durability

    def open_replica() -> Replica:
        is_new = options.access != "read" and _create(path, kind, options, priorities, fields)
        store = Store(path, access=options.access, durability=durability)
        with _closed_on_error(store):
            _check_identity(store, "kind", kind)
            _check_identity(store, "capacity", options.capacity)
            _check_identity(store, "keep_rows", options.keep_rows)
            return _new_replica(store, fields, options, priorities, is_new=is_new)

    return Guard(
        path,
        is_temporary=options.path is None,
        open_replica=open_replica,
        reopen=lambda: _reopened(path, options, priorities),
    )


class OpenedStore(NamedTuple):
    """An existing store, opened with its own settings."""

    guard: Guard
    options: Options
    priorities: PrioritySettings | None


@raising_own_errors
def open_stored(path: PathLike, seed: int | None, overrides: Mapping[str, Any]) -> OpenedStore:
    """Open a store with its own kind, capacity and settings.

    overrides:  options and settings that replace the stored ones
    """
    place = checked_path(path)
    access = overrides.get("access", "exclusive")
    check_word("access", access, ACCESS)
    found: list[tuple[Options, PrioritySettings | None]] = []

    def open_replica() -> Replica:
        store = Store(place, access=access)
        with _closed_on_error(store):
            options, priorities = _stored_options(store, seed, overrides)
            found[:] = [(options, priorities)]
            store.set_durability(options.durability)
            fields = ExpectedFields({}, all_given=False)
            return _new_replica(store, fields, options, priorities, is_new=False)

    def reopen() -> Replica:
        return _reopened(place, *found[0])

    guard = Guard(place, is_temporary=False, open_replica=open_replica, reopen=reopen)
    options, priorities = found[0]
    if seed is not None and isinstance(guard.replica, Writer):
        try:
            guard.begin_change()
            guard.replica.reseed(new_seed(seed))
            guard.end_change()
        except BaseException:
            guard.close_at_last()
            raise
    return OpenedStore(guard, options, priorities)


def _stored_options(
    store: Store, seed: int | None, overrides: Mapping[str, Any]
) -> tuple[Options, PrioritySettings | None]:
    """Return the stored options and settings, some of them overridden."""
    identity = store.identity
    with store.snapshot() as snapshot:
        stored = _state_of(store, snapshot).settings
        try:
            settings = RunSettings.of(stored).to_plain()
            own = PrioritySettings.of(stored).to_plain() if identity.has_priorities else {}
        except ArgumentError as error:
            raise DamageError(f"the settings of {store.path} are damaged: {error}") from None
    others = ("access", "window_bytes", "on_damage", "sampler")
    if unknown := overrides.keys() - {*settings, *own, *others}:
        raise ArgumentError(
            f"{min(unknown)!r} is no setting of a {identity.kind} buffer: "
            f"expected some of {', '.join([*others, *own, *settings])}"
        )
    settings |= {name: value for name, value in overrides.items() if name not in own}
    own |= {name: value for name, value in overrides.items() if name in own}
    options = Options(
        identity.capacity, seed=seed, path=store.path, keep_rows=identity.keep_rows, **settings
    )
    _check_sampler(options, identity.kind)
    return options, PrioritySettings(**own) if identity.has_priorities else None


def _state_of(store: Store, snapshot: Snapshot) -> State:
    """Return the state of a store."""
    try:
        return State.parse(snapshot.meta("state"), store.identity)
    except DamageError as error:
        raise DamageError(f"{error}, in {store.path}") from None


def _reopened(path: Path, options: Options, priorities: PrioritySettings | None) -> Replica:
    """Return a replica of a store that only reads it, with a random stream of its own."""
    options = replace(options, access="read", path=path, seed=None)
    store = Store(path)
    with _closed_on_error(store):
        fields = ExpectedFields({}, all_given=False)
        return _new_replica(store, fields, options, priorities, is_new=False)


@contextlib.contextmanager
def _closed_on_error(store: Store) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.close(sync=False)
        raise


def _create(
    path: Path,
    kind: str,
    options: Options,
    priorities: PrioritySettings | None,
    fields: ExpectedFields,
) -> bool:
    """Make the store if there is none, or replace it; return whether the store is new."""
    is_whole = not missing_in(fields.fields)
    facts = schema_facts(fields.applied(Schema(fields.fields.values()))) if is_whole else {}
    state = State(new_seed(options.seed), _settings(options, priorities))
    is_placed = is_whole or options.observations is None
    more = {} if is_placed else {_LOG: dict(options.log_options._asdict())}
    identity = Identity(kind, options.capacity, str(uuid4()), options.keep_rows, more)
    facts["state"] = state.to_plain(identity)
    if identity.keep_rows:
        facts["layout"] = with_features(facts.get("layout"), (KEPT_ROWS,))
    plain = identity.to_plain()
    if Store.create(path, plain, facts):
        return True
    if options.if_exists == "fail":
        raise MismatchError(
            f"{path} holds a store already (expected none, with if_exists='fail'): open it with "
            "if_exists='resume', or choose a new path"
        )
    if options.if_exists == "replace":
        with replacing(path) as place:
            Store.create(place, plain, facts)
    return options.if_exists == "replace"


def _new_replica(
    store: Store,
    fields: ExpectedFields,
    options: Options,
    priorities: PrioritySettings | None,
    *,
    is_new: bool,
) -> Replica:
    """Return the replica of an open store, with the parts for its kind and access."""
    if options.observations is None:
        fields.log_of_new_fields = _log_of_new_fields(store)
    rows = Rows(store, options.capacity, options.window_bytes, fields)
    links = Links(store.identity.slots)
    distribution = options.sampler or Usual()
    basis = DrawBasis()
    if priorities is not None:
        basis.priorities = distribution.table(store.identity.slots, priorities)
    if options.access == "exclusive":
        basis.counts = distribution.counts(store.identity.slots)
    sampler = distribution.sampler(basis)
    parts = Parts(basis, links, sampler, follows_runs=distribution.needs_runs)
    settings = _settings(options, priorities)
    if options.access == "exclusive":
        replica: Replica = Writer(store, rows, parts, settings)
    else:
        with store.snapshot() as snapshot:
            runs = _state_of(store, snapshot).runs
        # A stream of its own, from the seed and the number of runs before this one.
        stream = RandomStream(new_seed(options.seed, run=runs))
        made = SharedWriter if options.access == "shared" else Replica
        replica = made(store, rows, parts, settings, stream)
    if options.access != "read":
        if rows.schema is not None:
            check_disk_room(replica, rows.schema)
        if not is_new:
            held = count_of(replica.live.size, "transition")
            _log.info("%s holds %s, this is run %d", printable(store.path), held, replica.runs)
    return replica


def _log_of_new_fields(store: Store) -> LogOptions:
    """Return where the fields of a store are to be kept once there are any."""
    found = store.identity.plain.get(_LOG)
    with store.snapshot() as snapshot:
        if found is None or snapshot.meta("schema") is not None:
            return LogOptions()
    try:
        return LogOptions.checked(*(found.get(name) for name in LogOptions._fields))
    except (ArgumentError, AttributeError) as error:
        raise DamageError(f"the identity of {store.path} is damaged: {error}") from None


def _check_sampler(options: Options, kind: str) -> None:
    """Raise ArgumentError for a sampler that a buffer of this kind and access cannot have."""
    sampler = options.sampler
    if sampler is not None and sampler.needs_counts and options.access == "shared":
        raise ArgumentError(
            f"the sampler {sampler} counts draws, which several processes would do each for itself "
            "(found access='shared'): use access='exclusive', or another sampler"
        )
    if sampler is not None and sampler.needs_priorities and kind == "uniform":
        raise ArgumentError(
            f"the sampler {sampler} follows priorities, and a ReplayBuffer keeps none: use a "
            "PrioritizedReplayBuffer, or make one of a store with diskreplay.convert()"
        )


def _settings(options: Options, priorities: PrioritySettings | None) -> dict[str, Any]:
    return {
        **({} if priorities is None else priorities.to_plain()),
        **options.run_settings.to_plain(),
    }


def _check_identity(store: Store, name: str, expected: Any) -> None:
    found = getattr(store.identity, name)
    if found != expected:
        way_out = "change it with diskreplay.resize(), or load() it into a new buffer"
        if name == "kind":
            way_out = f"or {conversion_advice(store.path, expected)}"
        raise MismatchError(
            f"{name} is {found} in {store.path} (expected {expected}): open it with "
            f"diskreplay.open({str(store.path)!r}), {way_out}"
        )


def check_disk_room(replica: Replica, schema: Schema) -> None:
    """Warn if the disk has too little room for the full buffer; reserve a map of that size."""
    store, grouping = replica.store, replica.rows.grouping_of(schema)
    capacity, keep_rows = replica.identity.capacity, replica.identity.keep_rows
    prioritized = replica.priorities is not None
    found = estimate_of(schema, capacity, grouping, prioritized=prioritized, keep_rows=keep_rows)
    store.reserve(found.disk_bytes * 5 // 4)
    warn_of_disk(found, store.path, store.disk_bytes())


def conversion_advice(path: Path, kind: Any) -> str:
    """Return the sentence that says how to convert a store to another kind."""
    return (
        f"make it {kind} with diskreplay.convert({str(path)!r}, {kind!r}), or with "
        f'"diskreplay convert {path} --to {kind}"'
    )
