"""Features of the format: additions that a store lists; an unknown one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diskreplay.errors import DamageError, FormatVersionError
from diskreplay.schema import Schema
from diskreplay.wording import shown

_LOG, _NESTED, _VARYING = "observation-log", "nested-fields", "varying-fields"
LINKS = "links"  # a store has them from its first commit by this version on
KEPT_ROWS = "kept-rows"  # of a ring with slots beyond the capacity
MARKS_FEATURE = "marks"  # for which commits keep blocks, and after which write ids come again
KNOWN_FEATURES = (_LOG, _NESTED, _VARYING, KEPT_ROWS, MARKS_FEATURE, LINKS)


def features_of(schema: Schema) -> tuple[str, ...]:
    """Return the features that a store of this schema needs."""
    has_log = any(field.log for field in schema.fields)
    nested, varying = (_NESTED,) * (not schema.is_flat), (_VARYING,) * bool(schema.varying)
    return (_LOG,) * has_log + nested + varying


def has_links(layout: Any) -> bool:
    """Return whether a store of this layout has links; None is that of a store without a schema."""
    found = layout.get("features") if isinstance(layout, Mapping) else None
    return isinstance(found, list) and LINKS in found


def check_features(found: Any, where: str) -> None:
    """Raise FormatVersionError when a store uses a feature that this version does not know."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DamageError(f"{where} does not list its features (found {shown(found)})")
    unknown = [ascii(name)[:60] for name in found if name not in KNOWN_FEATURES]
    if unknown:
        raise FormatVersionError(
            f"{where} uses {', '.join(unknown[:8])}, which this diskreplay does not know (it knows "
            f"{', '.join(KNOWN_FEATURES)}): install a newer version of diskreplay"
        )
