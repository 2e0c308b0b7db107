"""What is kept of records that do not fit, without the secrets that a server has repeated in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from collect_ops.kernel.spellings import search_work
from collect_ops.landing.model import BadRow

MAX_REASON_CHARS: Final = 1000
NOT_KEPT: Final = "not kept: the page's other bad rows were all that is searched for secrets"

# So much of a page is searched, reasons and records apart: some seconds.
_WORK: Final = 4_000_000


def cut_reason(text: str) -> str:
    """So much of a reason as anybody reads; an ellipsis says where it was cut, to whoever masks it, too."""
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."


def without_secrets(bad: Sequence[BadRow], masked: Callable[[str], str]) -> tuple[BadRow, ...]:
    """Bad rows as they may be stored.

    Args:
        bad: Of one page.
        masked: Masks the secrets in a text.
    """
    reasons = _masked([cut_reason(row.reason) for row in bad], masked)
    texts = _masked([row.row_text for row in bad], masked)
    return tuple(
        replace(row, reason=reason, row_text=text)
        for row, reason, text in zip(bad, reasons, texts, strict=True)
    )


def _masked(texts: Sequence[str], masked: Callable[[str], str]) -> Iterator[str]:
    left = _WORK
    for text in texts:
        left -= search_work(text) if left >= 0 else 0
        yield masked(text) if left >= 0 else NOT_KEPT
