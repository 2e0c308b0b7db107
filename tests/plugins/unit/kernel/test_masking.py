from __future__ import annotations

import json
import random
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collect_ops.collectors.errors import NotJson
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.masking import MASK, MAX_DEPTH, mask, mask_beginning, mask_error
from collect_ops.kernel.secret_names import sounds_secret
from collect_ops.kernel.spellings import MIN_LENGTH

SECRETS = st.lists(st.text(min_size=MIN_LENGTH, max_size=12), min_size=1, max_size=4)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from texts(name)
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def around(secret: str, value: Any) -> Any:
    """A nested value that holds the secret in many ways."""
    return {
        "plain": secret,
        f"name {secret}": value,
        "list": [f"a{secret}b", (secret, secret * 2), [secret, value]],
        "bytes": f"x{secret}".encode("utf-8", errors="surrogatepass"),
        "password": secret,
        "deep": {"deeper": [{"deepest": f"{secret}{secret[0]}"}]},
    }


@given(
    SECRETS,
    st.one_of(
        st.integers(), st.floats(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.integers())
    ),
)
@example(["******"], "*******")
@example(["*******", "******"], {"token": "x"})
@example(["xxxxxx", "*bbbbb"], "xxxxxxbbbbb")
@example(["######", "******", "••••••"], "••••••#######******")
@example(["201120"], 20112012)
@example(["abcdef", "defghi"], "abcdefghi")
def test_no_given_secret_survives(secrets: list[str], value: Any) -> None:
    for one in secrets:
        masked = mask(around(one, value), secrets=secrets)
        for text in texts(masked):
            assert not any(secret in text for secret in secrets)


def test_secrets_that_are_too_short_are_not_looked_for() -> None:
    assert mask("https://host/index?x=1", secrets=["x", "index"]) == "https://host/index?x=1"


@pytest.mark.parametrize("shown", [10, 43, 80])
@pytest.mark.parametrize("encoded", [str, quote, lambda text: b64encode(text.encode()).decode()])
def test_a_beginning_is_masked_before_it_is_cut(encoded: Callable[[str], str], shown: int) -> None:
    secret = "kR7/" * 11
    for before in range(60):
        text = "-" * before + " " + encoded(secret) + " and more"
        beginning = mask_beginning(text, shown, secrets=[secret])
        assert beginning == mask(text, secrets=[secret])[:shown]
        assert "kR7" not in beginning


def test_a_secret_that_goes_beyond_what_is_looked_at_is_masked_as_far_as_it_goes() -> None:
    secret = "".join(random.Random(7).choices("abcdefghijkl", k=9000))
    assert mask_beginning(f"no: {secret}", 80, secrets=[secret]) == "no: ***"
    assert mask_beginning(f"no: {b64encode(secret.encode()).decode()}", 80, secrets=[secret]) == "no: ***"


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text("abc /.")),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "name", "rows"]), inner),
        max_leaves=10,
    )
)
def test_what_holds_no_secret_stays_as_it_is(value: Any) -> None:
    assert mask(value, secrets=["XYZ"]) == value


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "Cookie", "Set-Cookie", "X-Api-Key", "api_key", "apiKey",
        "APIKEY", "key", "access_token", "nextPageToken", "password", "PGPASSWORD", "client_secret",
        "X-Amz-Signature", "sig", "pwd", "sessionId", "private%5Fkey", "X-Auth",
    ],
)  # fmt: skip
def test_names_that_sound_secret(name: str) -> None:
    assert sounds_secret(name)
    assert mask({name: "abc"}) == {name: MASK}
    assert mask([(name, "abc")]) == [(name, MASK)]
    assert "abc" not in mask(f"https://host/p?a=1&{name}=abc&b=2")


@pytest.mark.parametrize(
    "name", ["id", "monkey", "keyboard", "author", "signal", "passenger", "Content-Type", "offset"]
)
def test_names_that_do_not(name: str) -> None:
    assert mask({name: "abc"}) == {name: "abc"}
    assert mask(f"https://host/p?{name}=abc") == f"https://host/p?{name}=abc"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://user:pw@host:1/v", "amqp://***@host:1/v"),
        ("redis://:pw@host/0?a=b", "redis://***@host/0?a=b"),
        ("host=h password='p w' user=u", "host=h password='***' user=u"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: ***"),
        ("sent Bearer abc.def-ghi to h", "sent Bearer *** to h"),
        ("{'X-Api-Key': 'abc', 'a': 'b'}", "{'X-Api-Key': ***"),
        ('{"token": "a\\"b", "n": 1}', '{"token": "***", "n": 1}'),
        ("HTTP 401 for https://h/x?api_key=k1&page=2", "HTTP 401 for https://h/x?api_key=***&page=2"),
        ("unexpected token: <", "unexpected token: <"),
        # within the value of a harmless name
        ("url=https://h/?token=abcdef", "url=https://h/?token=***"),
        ("next=/login?password=hunter2&page=2", "next=/login?password=***&page=2"),
        ("redirect=/b?api_key=K", "redirect=/b?api_key=***"),
        (
            "next=%2Flogin%3Fpassword%3Dhunter2%26page%3D2&a=b",
            "next=%2Flogin%3Fpassword%3D***%26page%3D2&a=b",
        ),
        ("next=%252Fb%253Fkey%253Da%252526b%2526page%253D2", "next=%252Fb%253Fkey%253D***%2526page%253D2"),
        ("next=%2Fb?key%3Dk1&a=b", "next=%2Fb?key%3D***&a=b"),
        (
            '{"body": "{\\"password\\": \\"hunter2\\"}", "n": 1}',
            '{"body": "{\\"password\\": \\"***\\"}", "n": 1}',
        ),
        ('{"b": "{\\"pin\\": 4711, \\"n\\": 1}"}', '{"b": "{\\"pin\\": ***, \\"n\\": 1}"}'),
        ("{'extra': '{\"api_key\": \"hunter2\"}'}", "{'extra': '{\"api_key\": \"***\"}'}"),
        ('{"m": "password=\\"hunter2\\" is"}', '{"m": "password=\\"***\\" is"}'),
        # numbers, lists, objects and bytes
        ('{"pin": 471199, "n": 1}', '{"pin": ***, "n": 1}'),
        ('{"otp": -1.5e+7}', '{"otp": ***}'),
        ('{"tokens": ["a", "b]"], "n": 1}', '{"tokens": ***, "n": 1}'),
        ('{"credentials": {"a": {"b": "}"}}, "n": 1}', '{"credentials": ***, "n": 1}'),
        ('"{\\"secrets\\": [\\"a\\", \\"b\\"", "password": "c"', '"{\\"secrets\\": ***", "password": "***"'),
        ("{'password': b'hunter2', 'n': 1}", "{'password': b'***', 'n': 1}"),
        ('{"password" => "hunter2", "n" => 1}', '{"password" => "***", "n" => 1}'),
        # without an end
        ('{"n": 1, "password": "hunter2', '{"n": 1, "password": "***'),
        ("{'n': 1, 'password': 'hunter2\\", "{'n': 1, 'password': '***"),
        ('{"n": 1, "pin": 47', '{"n": 1, "pin": ***'),
        ('{"tokens": ["hunter2", "hun', '{"tokens": ***'),
        ('{"b": "{\\"password\\": \\"hunter2", "n": 1', '{"b": "{\\"password\\": \\"***", "n": 1'),
        ("host=h password='hunter2 and\nuser=u", "host=h password='***\nuser=u"),
        ("host=h password='it\\'s' user=u", "host=h password='***' user=u"),
        # addresses with their slashes escaped
        ('"amqp:\\/\\/user:pw@host\\/v"', '"amqp:\\/\\/***@host\\/v"'),
        ("url=amqp%3A%2F%2Fuser%3Apw%40host%2Fv", "url=amqp%3A%2F%2F***%40host%2Fv"),
    ],
)
def test_secrets_within_texts(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize("length", [4_090, 5_000, 70_000])
@pytest.mark.parametrize("mark", ['"', "'", '\\"'])
def test_a_secret_under_its_name_may_be_of_any_length(mark: str, length: int) -> None:
    text = f"{{{mark}token{mark}: {mark}{'x' * length}{mark}, {mark}n{mark}: 1}}"
    assert mask(text) == f"{{{mark}token{mark}: {mark}***{mark}, {mark}n{mark}: 1}}"
    assert mask(f"a token={mark}{'x' * length}{mark} is") == f"a token={mark}***{mark} is"


@given(
    st.recursive(
        st.integers(10**6, 10**9) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("an\"'\\", max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    ),
    st.integers(0, 3),
)
@example("\\", 2)
@example('"', 3)
def test_a_secret_under_its_name_is_masked_however_deep_its_json_lies(value: Any, levels: int) -> None:
    text = json.dumps({"a": "b", "password": value, "end": "of it"})
    expected = json.dumps({"a": "b", "password": "***", "end": "of it"})
    if not isinstance(value, str):
        expected = expected.replace('"***"', "***")
    for _ in range(levels):
        text, expected = json.dumps({"x": text, "y": 1}), json.dumps({"x": expected, "y": 1})
    assert mask(text) == expected


def test_shapes_are_kept() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    value = {"a": (1, "x"), "at": moment, "none": None, "token": None, "secret": "", "set": {"q"}}
    assert mask(value) == {
        "a": (1, "x"),
        "at": moment,
        "none": None,
        "token": None,
        "secret": "",
        "set": ["q"],
    }
    assert mask({b"Cookie": b"a=b"}) == {"Cookie": MASK}


def test_endless_nesting_is_cut() -> None:
    value: Any = "leaf"
    for _ in range(5000):
        value = [value]
    masked = mask(value)
    depth = 0
    while isinstance(masked, list):
        masked, depth = masked[0], depth + 1
    assert (masked, depth) == (MASK, MAX_DEPTH)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a://",
        '"a',
        "x-",
        "a=",
        '"a":"',
        "'",
        "='",
        "%",
        '"a": "\\"',
        "a:",
        'token="',
        "-",
        "[",
        "\\",
        "&#",
        "&amp;",
        "%25",
        "secre",
        "%5c",
        "=",
        "=3D",
        "=\n",
        "+",
        "+AC8",
        "+AC8-",
        "c2Vj ",
        "e\u0301",
        "'token':'\\\"",
        "token='\n",
        "token=\"a\ntoken='b\n",
        '"token":[',
        '"token":\\',
        '\\"token\\":\\"',
        '"token":["a',
        "token=\\",
        "%3Dtoken",
        "token%3D",
        "a%3A%2F%2F",
        "a:\\/\\/",
        "token%253D%25",
        "0x",
        "12, ",
        "0x12,        ",
        "=41",
        "=41=4",
        "=46rom",
    ],
)
def test_hostile_texts_cost_no_more_than_their_length(piece: str) -> None:
    def seconds(length: int) -> float:
        began = time.process_time()
        mask(piece * (length // len(piece)), secrets=["secret"])
        return time.process_time() - began

    assert seconds(20_000) < 3
    assert seconds(80_000) < 12


@pytest.mark.parametrize(
    "piece",
    [
        "a=", "token=", '"a":"', '"token":"', "'token':'\\", '"token":[', '\\"token\\":\\"', "token='\n", "%3Dtoken%3D",
        'token="a\ntoken=\'b\n', '"', "\\", "'token':1", '"token":"\\\\', "a%3A%2F%2F", "a:\\/\\/", "token=\\\"",
    ],
)  # fmt: skip
def test_hostile_names_cost_next_to_nothing(piece: str) -> None:
    began = time.process_time()
    mask(piece * 20_000)
    assert time.process_time() - began < 1


KEY = "kR7/qW2+pL9"


def raised(build: Callable[[], Exception]) -> Exception:
    """The error, with a traceback."""
    try:
        raise build()  # noqa: TRY301 - that is what it is for
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error


def quoting() -> Exception:
    error = NotJson("http://h/x", f"text/{KEY}", f"no {quote(KEY, safe='')}", f"what is {KEY}?")
    error.add_note(f"sent {KEY}")
    error.__cause__ = raised(lambda: ValueError("cannot read", KEY))
    error.__cause__.__context__ = UnicodeDecodeError("utf-8", b"x", 0, 1, f"near {KEY}")
    return error


@pytest.mark.parametrize(
    "build",
    [
        quoting,
        lambda: ValidationFailed(
            "s", [Fault(field="f", value={"a": [KEY]}, problem=f"not {KEY}", allowed=("b",))]
        ),
        lambda: ExceptionGroup("several", [ValueError(KEY), quoting()]),
        lambda: KeyError(KEY),
        lambda: OSError(5, f"cannot open {KEY}"),
        lambda: OSError(2, "no such file", f"/a/{KEY}", None, f"/b/{KEY}"),
        lambda: UnicodeDecodeError("utf-8", KEY.encode(), 0, 1, f"near {KEY}"),
        lambda: ImportError(f"no {KEY}", name=KEY, path=f"/a/{KEY}"),
        lambda: SyntaxError(f"what is {KEY}", (f"/a/{KEY}", 1, 1, f"x = {KEY}")),
        lambda: StopIteration(KEY),
    ],
)
def test_an_error_is_masked_with_its_fields_its_notes_and_what_it_was_raised_from(
    build: Callable[[], Exception],
) -> None:
    error = raised(build)
    kind = type(error)
    mask_error(error, secrets=[KEY])
    assert type(error) is kind
    shown = [str(error), repr(error.args), repr(vars(error)), "".join(traceback.format_exception(error))]
    for text in shown:
        assert KEY not in text
        assert quote(KEY, safe="") not in text
    assert MASK in shown[0] or MASK in shown[3]


def test_an_error_without_a_secret_stays_as_it_is() -> None:
    cause = ValueError("cannot read", "this")
    error = NotJson("http://h/x?page=2", "text/html", "<p>", "password=1 is no JSON")
    error.__cause__ = cause
    before = (str(error), dict(vars(error)), cause.args)
    mask_error(error, secrets=[KEY])
    assert (str(error), dict(vars(error)), cause.args) == before
    assert error.__cause__ is cause


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        OSError("cannot read the file"),
        ConnectionResetError(104, "reset"),
        FileNotFoundError(2, "no such file", "a"),
        FileNotFoundError(2, "no such file", b"a", None, b"b"),
        OSError(18, "cannot move", "a", None, "b"),
        UnicodeDecodeError("utf-8", b"x\xff", 1, 2, "invalid"),
        UnicodeEncodeError("ascii", "x\u2026", 1, 2, "no such character"),
        ImportError("no such module", name="a"),
        SyntaxError("invalid", ("a.py", 1, 1, "x =")),
        StopIteration(),
        ValueError(b"bytes", bytearray(b"more")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("linked", [False, True])
def test_errors_of_python_without_a_secret_stay_as_they_are(error: Exception, *, linked: bool) -> None:
    outer = ValueError("outer")
    outer.__cause__ = error
    before = (str(error), repr(error), error.args)
    mask_error(outer if linked else error, secrets=[KEY])
    assert (str(error), repr(error), error.args) == before
    assert outer.__cause__ is error


def test_faults_stay_faults() -> None:
    error = ValidationFailed("s", [Fault(field="f", value=KEY, problem=f"not {KEY}", allowed=("b",))])
    mask_error(error, secrets=[KEY])
    assert error.faults == (Fault(field="f", value=MASK, problem=f"not {MASK}", allowed=("b",)),)
