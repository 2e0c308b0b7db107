"""Which releases of the three servers run; asked of themselves, since a package's version is not a process's."""

from __future__ import annotations

import re

import httpx
import psycopg
from redis import RedisError

from stack import postgres, redis
from stack.faults import BadSetting, StackError
from stack.settings import HOST, Stack


def running(stack: Stack) -> dict[str, str]:
    """The servers' versions by name.

    Raises:
        StackError: One of them does not answer.
    """
    found: dict[str, str] = {}
    for name, ask in (("postgres", _postgres), ("redis", redis.version), ("rabbitmq", _rabbitmq)):
        try:
            found[name] = ask(stack)
        except (psycopg.Error, RedisError, httpx.HTTPError) as error:
            raise StackError(
                f"{name} does not say its version: {error}; does it run (make status)?"
            ) from error
    return found


def _postgres(stack: Stack) -> str:
    with postgres.connect(stack) as connection:
        version = connection.info.parameter_status("server_version") or ""
    return version.split(" ")[0]


def _rabbitmq(stack: Stack) -> str:
    places = stack.places
    answer = httpx.get(
        f"http://{HOST}:{stack.ports.rabbitmq_management}/api/overview",
        auth=(places["RABBITMQ_USER"], places["RABBITMQ_PASSWORD"]), timeout=15, trust_env=False,
    )  # fmt: skip
    answer.raise_for_status()
    return str(answer.json()["rabbitmq_version"])


def demand(found: dict[str, str], least: dict[str, str]) -> None:
    """See that servers are not older than they shall be.

    Args:
        found: Versions by name.
        least: The least version by name; as many parts as matter (`17`, `4.3`).

    Raises:
        StackError: One is older; all that are, are named.
    """
    older = [
        f"{name} is {found[name]}, not {version} or later"
        for name, version in least.items()
        if numbers(found[name]) < numbers(version)
    ]
    if older:
        raise StackError("; ".join(older))


def parsed(text: str, known: dict[str, str]) -> dict[str, str]:
    """`postgres=17,redis=8` as a dict.

    Raises:
        BadSetting: It is not written like that, or names another server.
    """
    pairs = [pair.partition("=")[::2] for pair in text.split(",")]
    for name, version in pairs:
        if name not in known or not re.fullmatch(r"\d+(\.\d+)*", version):
            raise BadSetting("--at-least", text, f"NAME=VERSION,… with a name of {', '.join(known)}")
    return dict(pairs)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers a version begins with: 4.0.5-rc.1 is (4, 0, 5)."""
    begin = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in begin[0].split(".")) if begin else ()
