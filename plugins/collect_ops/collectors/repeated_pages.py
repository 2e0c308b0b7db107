"""What a page's records are known by, so that a page that comes again is noticed. Pure.

A server that ignores a paging parameter answers every request with the same rows. The body may differ all the same (a
time, a request's id), and so may fields of the rows; their keys do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from collect_ops.collectors.content import Records, RowType, text_of, values_of
from collect_ops.collectors.page import Json
from collect_ops.kernel.json_text import json_bytes
from collect_ops.sources.expressions import ExpressionFails, compiled
from collect_ops.sources.model import NoPaging, Source

_DIGEST_BYTES = 16
#: Of a longer page so many rows are compared, spread over it, the last one among them: the keys of all of 5,000 rows
#: would cost 0.8 milliseconds, a twentieth of what the page costs, and rows of 20 fields without a key four.
_MOST_KEYS = 1000
_MOST_WHOLE_ROWS = 500

Values = Callable[[Sequence[Json]], list[Json]]
"""A key column's value in each of the records, as sent.

Raises:
    LookupError, TypeError, ExpressionFails: A record has none.
"""


class PagePrints:
    """Makes the fingerprints of a source's pages.

    Args:
        source: The source; its `target.key` says what a row is known by, else the whole row is.
        row_type: What its pages may be read as.
    """

    def __init__(self, source: Source, row_type: RowType | None = None) -> None:
        target = source.target
        self.wanted = not isinstance(source.paging, NoPaging) and source.paging.equal_pages != "allow"
        self._row_type = row_type
        self._keys = tuple(
            _values_at(name, target.columns[name].path if name in target.columns else None)
            for name in target.key
        )

    def of(self, records: Sequence[Json], scope: bytes = b"") -> bytes | None:
        """The fingerprint of a page; None where it says nothing: no row, or one row without a key.

        Args:
            records: As sent, less those that are not the shard's.
            scope: What equal pages must have in common beside their rows.
        """
        if not records:
            return None
        keys = self._keys_of(_spread(records, _MOST_KEYS))
        if keys is None and len(records) == 1:
            return None
        # Of the fast ones here it is the one that processors have an instruction for.
        digest = hashlib.sha256(b"%d %b " % (len(records), scope))
        digest.update(_encoded(keys) if keys is not None else self._whole(_spread(records, _MOST_WHOLE_ROWS)))
        return digest.digest()[:_DIGEST_BYTES]

    def _whole(self, records: Sequence[Json]) -> bytes:
        try:
            return text_of(records, self._row_type)
        except ValueError:
            # A value that cannot be written down is a bad row; its page is known by it all the same.
            return _encoded(list(records))

    def _keys_of(self, records: Sequence[Json]) -> list[list[Json]] | None:
        """The keys of all records; None without a declared one, or when a record lacks it: then whole rows count."""
        if not self._keys:
            return None
        try:
            columns = [values(records) for values in self._keys]
        except (LookupError, TypeError, ExpressionFails):
            return None
        return None if any(None in column for column in columns) else columns


def _spread(records: Sequence[Json], most: int) -> Sequence[Json]:
    step = -(-len(records) // most)
    return records if step <= 1 else records[::-step]  # backwards, from the last one


def _values_at(name: str, path: str | None) -> Values:
    """How the values of a key column are read."""
    text = path or name
    if text.isidentifier():
        return partial(_field_of, field=text)
    parts = text.split(".")
    if all(part.isidentifier() for part in parts):
        fields = [itemgetter(part) for part in parts]

        def below(records: Sequence[Json]) -> list[Json]:
            values: Any = records
            for field in fields:
                values = map(field, values)
            return list(values)

        return below
    expression = compiled(text)
    return lambda records: [expression.search(record) for record in records]


def _field_of(records: Sequence[Json], *, field: str) -> list[Json]:
    if isinstance(records, Records):
        return values_of(records, field)  # without parsing them
    return list(map(itemgetter(field), records))


def _encoded(value: object) -> bytes:
    try:
        return json_bytes(value)
    except ValueError:  # lone surrogates, numbers that JSON does not have
        return json.dumps(value, default=str).encode()
