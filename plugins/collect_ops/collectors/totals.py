"""The total a source names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from collect_ops.collectors.errors import TotalUnusable
from collect_ops.collectors.page import Json
from collect_ops.kernel.masking import mask_beginning

_CONTENT_RANGE = re.compile(r"[^/]*/\s*(\d{1,18}|\*)\s*")


def total_of(
    value: Json, *, where: str, shown: str, quote: Callable[[str, int], str] = mask_beginning
) -> int | None:
    """The number of rows that `value` means; None when it says that it does not know (null, `*`).

    Args:
        value: From a body or a header: a number, its text, or `items 0-24/1000` as in `Content-Range`.
        where: Where it stands, for the error.
        shown: Masked URL, for the error.
        quote: Makes the value showable, for the error.

    Raises:
        TotalUnusable: It is no number of rows.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        ranged = _CONTENT_RANGE.fullmatch(text)
        text = ranged[1] if ranged else text
        if text == "*":
            return None
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise TotalUnusable(shown, where, quote(repr(value), 80))
