"""Field: one named column, and which arguments describe none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diskreplay import Field, SchemaError


def test_a_field_is_a_float32_number_in_native_byte_order_unless_said_otherwise() -> None:
    assert Field("x") == Field("x", np.dtype("f4"), ()) == Field("x", "float32")
    assert (str(Field("x")), str(Field("x", "u1", (2, 3)))) == ("x: float32", "x: uint8[2, 3]")
    assert Field("x", "f8", [2, 3]).payload_bytes == 48
    assert Field("x", ">i4").dtype.isnative
    assert Field("x", ">i4") == Field("x", "<i4")


IDENTIFIER, NUMBERS = r"name must be a Python identifier \(found", "'x': expected numbers or bools"
UNUSABLE = "field 'x' has no usable dtype or shape"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(((name,), IDENTIFIER) for name in ("", "two words", "1st", "a-b", None, 3, b"x")),
        *((("x", dtype), NUMBERS) for dtype in ("O", "U3", "S3", "M8[s]", "V4", np.clongdouble)),
        (("x", [("a", "f4")]), NUMBERS),
        (("x", "nonsense"), f"{UNUSABLE}: .*nonsense"),
        *((("x", "f4", shape), UNUSABLE) for shape in (3, None, ["a"], [()])),
        *(
            (("x", "f4", shape), UNUSABLE) for shape in ((2.5,), "12", (float("inf"),))
        ),  # no whole numbers
        (("x", "f4", (2, -1)), r"has a negative length in its shape \(2, -1\)"),
        (("x", "f4", (1,) * 33), r"has 33 dimensions, the longest of 1 \(expected at most 32"),
        (("x", "f4", (0, 2**31)), r"has 2 dimensions, the longest of 2147483648 \(exp"),
        (("x", "f4", (0, 2**20, 2**20)), "expected at most 1073741824 bytes"),
    ],
)
def test_what_is_no_field_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Field(*arguments)
