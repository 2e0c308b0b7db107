"""What is kept of bad rows: masked, and no more of it than can be searched."""

from __future__ import annotations

import random
import time
from base64 import b64encode

import pytest

from collect_ops.kernel.masking import mask
from collect_ops.landing.bad_row_texts import MAX_REASON_CHARS, NOT_KEPT, without_secrets
from collect_ops.landing.model import BadRow

SECRET = "a-pass/word+of=it"


def masked(text: str) -> str:
    return str(mask(text, secrets=[SECRET], names=False))


def bad_row(ordinal: int, reason: str, row_text: str) -> BadRow:
    return BadRow(ordinal=ordinal, reason=reason, row_text=row_text)


def test_reason_and_record_are_masked_and_other_names_stay() -> None:
    reason = 'id: "a-pass%2fword+of=it" does not fit bigint (invalid input syntax: "a-pass%2fword+of=it")'
    (kept,) = without_secrets([bad_row(3, reason, '{"id":"a-pass\\/word+of=it","key":"k"}')], masked)
    assert kept.reason == 'id: "***" does not fit bigint (invalid input syntax: "***")'
    assert kept.row_text == '{"id":"***","key":"k"}'
    assert kept.ordinal == 3


def test_a_secret_at_the_end_of_a_long_reason_is_cut_and_masked() -> None:
    text = "x" * (MAX_REASON_CHARS - 8) + SECRET
    (kept,) = without_secrets([bad_row(0, text, "{}")], masked)
    assert kept.reason == "x" * (MAX_REASON_CHARS - 8) + "***..."


def test_a_page_of_packed_texts_has_an_end_as_well() -> None:
    hard = [
        b64encode(b"\\" * 6144),
        b64encode(b64encode(b"\\" * 4608)),
        (b"\\" * 4096).hex().encode(),
        b64encode(b"ab\x00\xff" + b"%25" * 2046),
        b"=3D=25" * 1365,
    ]
    rows = [bad_row(number, "does not fit", hard[number % len(hard)].decode()) for number in range(500)]
    began = time.process_time()
    kept = without_secrets(rows, masked)
    assert time.process_time() - began < 30
    assert kept[0].row_text == rows[0].row_text
    assert kept[-1].row_text == NOT_KEPT


def test_a_page_of_packed_noise_is_searched_to_its_end() -> None:
    noise = random.Random(7)
    rows = [bad_row(n, "does not fit", b64encode(noise.randbytes(6144)).decode()) for n in range(300)]
    began = time.process_time()
    assert list(without_secrets(rows, masked)) == rows
    assert time.process_time() - began < 10


def test_a_page_of_texts_that_are_hard_to_search_has_an_end() -> None:
    rows = [bad_row(number, "\\" * 900, "\\" * 8192) for number in range(2_000)]
    began = time.process_time()
    kept = without_secrets(rows, masked)
    assert time.process_time() - began < 30
    assert [row.ordinal for row in kept] == list(range(2_000))
    assert kept[0].row_text == rows[0].row_text
    assert kept[-1].row_text == kept[-1].reason == NOT_KEPT


@pytest.mark.parametrize(
    ("plain", "number"),
    [
        ("x" * 300, 10_000),
        ('{"id":17,"name":"a name, of some words","at":"2026-01-02T03:04:05Z"}' * 4, 2_000),
        ("0a1b2c3d-" * 30, 2_000),
    ],
    ids=["letters", "json", "hex"],
)
def test_a_page_of_plain_texts_is_kept(plain: str, number: int) -> None:
    rows = [bad_row(ordinal, "does not fit", plain) for ordinal in range(number)]
    assert list(without_secrets(rows, masked)) == rows
