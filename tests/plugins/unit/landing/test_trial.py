"""Records that cannot be rows, as they are shown."""

from __future__ import annotations

from collect_ops.kernel.masking import mask
from collect_ops.landing.model import BadRow
from collect_ops.landing.trial import misfit_of

SECRET = "a-pass/word+of=it"


def test_what_is_shown_of_a_record_says_that_it_was_cut_so_that_a_secret_at_its_end_is_masked() -> None:
    for before in range(90):
        text = "x" * before + SECRET + "y" * 80
        shown = misfit_of(BadRow(ordinal=3, reason="is no object", row_text=text))
        assert (shown.ordinal, shown.column, shown.problem) == (3, None, "is no object")
        assert shown.value is not None
        masked = mask(shown.value, secrets=[SECRET], names=False)
        assert masked.endswith("...")
        assert "a-pass" not in masked
    short = misfit_of(BadRow(ordinal=0, reason="is no object", row_text="[]"))
    assert short.value == "[]"
