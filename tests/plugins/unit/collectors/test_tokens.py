"""What is said of a token endpoint's answer: no token that stands in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import CollectorError
from collect_ops.collectors.tokens import Token, TokenAnswer, TokenAsk, token_in
from tests.factories import source

TOKEN = "eyJhbGciOi/J9.tok+en-of=it"
SPELLED = (TOKEN, quote(TOKEN, safe=""))


def answered(document: dict[str, Any], status: int = 200) -> Token:
    endpoint = Endpoint(
        base_url="https://api.example.org",
        login="somebody",
        password="a-pass/word+of=it",
        token_url="https://api.example.org/token",
    )
    ask = TokenAsk.of(source(auth={"type": "oauth2"}), endpoint)
    assert ask is not None
    answer = TokenAnswer(status=status, headers={}, body=orjson.dumps(document))
    return token_in(ask, answer, asked_at=0.0, now=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize(
    "answer",
    [
        lambda text: {"access_token": TOKEN, "token_type": text},
        lambda text: {"access_token": TOKEN, "expires_in": text},
        lambda text: {"access_token": TOKEN, "expires_in": f"for {text}"},
        lambda text: {"access_token": TOKEN, "error": "invalid_client", "error_description": f"not {text}"},
        lambda text: {"refresh_token": TOKEN, "error": "invalid_client", "error_description": text},
        lambda text: {"id_token": TOKEN, "error": text, "error_description": text},
        lambda text: {"access_token": "short", "id_token": TOKEN, "token_type": "Bearer", "expires_in": text},
        lambda text: {"access_token": "short", "token_type": text},
    ],
)
def test_no_error_shows_a_token_of_the_answer(answer: Any, spelled: str, status: int) -> None:
    try:
        token = answered(answer(spelled), status)
    except CollectorError as error:
        shown = f"{error} {error!r} {vars(error)}"
        assert not [each for each in SPELLED if each in shown or each[:12] in shown], shown
    else:
        assert token.text == TOKEN  # a description beside a token says nothing


@pytest.mark.parametrize("code", ["invalid_client", "eyjhbgcioij9-token"])
def test_a_code_is_shown_unless_it_is_a_token(code: str) -> None:
    with pytest.raises(CollectorError) as caught:
        answered({"error": code, "refresh_token": "eyjhbgcioij9-token"}, 400)
    assert (code in str(caught.value)) == (code == "invalid_client")


def test_a_type_is_shown() -> None:
    with pytest.raises(CollectorError, match="'mac'"):
        answered({"access_token": TOKEN, "token_type": "mac"})
