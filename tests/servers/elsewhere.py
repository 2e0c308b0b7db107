"""Servers of a test that stand for other machines, although they listen on this one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from collect_ops.collectors.guard import Guard


def stand_elsewhere(monkeypatch: pytest.MonkeyPatch, *base_urls: str) -> None:
    """Let every connection that allows private networks reach them, as it would reach them there."""
    of = Guard.of

    def of_more(urls: Iterable[str | None], *, allow_private: bool) -> Guard:
        return of((*urls, *base_urls), allow_private=allow_private)

    monkeypatch.setattr(Guard, "of", of_more)
