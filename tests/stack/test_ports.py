"""Ports are stable for a folder, free, and can be set."""

from __future__ import annotations

import socket

import pytest

from stack import ports
from stack.faults import BadSetting
from stack.ports import Ports


def test_the_same_stack_gets_the_same_block_and_another_gets_another() -> None:
    first, again, other = (ports.choose(stack_id, {}) for stack_id in ("0000000a", "0000000a", "0000000b"))
    assert first == again
    assert not set(first.as_dict().values()) & set(other.as_dict().values())


def test_a_block_with_a_taken_port_is_passed_over() -> None:
    wanted = ports.choose("00000123", {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wanted.redis))
        taken.listen()
        assert not ports.is_free(wanted.redis)
        assert ports.choose("00000123", {}).postgres >= wanted.postgres + ports.BLOCK


def test_environment_sets_the_block_or_single_ports() -> None:
    chosen = ports.choose("0000000a", {"PORT_BASE": "25000", "API_SERVER_PORT": "8080"})
    assert (chosen.postgres, chosen.redis, chosen.api_server) == (25_000, 25_001, 8080)


@pytest.mark.parametrize("value", ["", "abc", "80", "70000", "-1", "1e4"])
def test_what_is_no_port_is_refused_by_name(value: str) -> None:
    with pytest.raises(BadSetting, match=r"REDIS_PORT: .*allowed: a port number from 1024 to 65535"):
        Ports.from_base(20_000).overridden({"REDIS_PORT": value})
