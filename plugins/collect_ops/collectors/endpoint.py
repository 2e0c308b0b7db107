"""Where a source's requests go and who asks: what an Airflow connection says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from collect_ops.collectors.urls import parse_url
from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean
from collect_ops.sources.texts import token_url_problem

_EXTRA = ("headers", "allow_private_networks", "token_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server's base URL and the credentials for it.

    Args:
        base_url: `scheme://host[:port][/base]`.
        login: User name for basic authentication.
        password: Password, bearer token or API key.
        headers: Sent with every request to this scheme, host and port, and nowhere else.
        allow_private_networks: Whether private addresses may be asked; loopback only when the base URL's host is there.
        token_url: Where tokens are given out (auth.type oauth2); also on another host than the base URL's.
    """

    base_url: str
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_private_networks: bool = False
    token_url: str | None = None

    @classmethod
    def from_connection_json(cls, text: str, *, connection: str = "connection") -> Endpoint:
        """Read Airflow's JSON form of a connection (`AIRFLOW_CONN_…`).

        Args:
            text: `{"conn_type", "host", "schema", "port", "login", "password", "extra"}`; `host` is required.
            connection: Its id, for error messages.

        Raises:
            ValidationFailed: It is not JSON, or has faults; all of them.
        """
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            # The text holds a password: neither it nor the parser's message may be shown.
            raise _failed(
                connection, [Fault(field="", value=None, problem="must be a JSON object")]
            ) from error
        if not isinstance(fields, dict):
            raise _failed(connection, [Fault(field="", value=None, problem="must be a JSON object")])
        return cls.from_mapping(fields, connection=connection)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], *, connection: str = "connection") -> Endpoint:
        """The same from a mapping; `extra` is a mapping or JSON text.

        Raises:
            ValidationFailed: It has faults; all of them.
        """
        faults: list[Fault] = []
        extra = _extra(fields.get("extra"), faults)
        base_url = _base_url(fields, faults)
        headers = extra.get("headers") or {}
        allow = extra.get("allow_private_networks", False)
        faults += _extra_faults(extra)
        faults += _text_faults(fields)
        if faults:
            raise _failed(connection, faults)
        return cls(
            base_url=base_url,
            login=fields.get("login") or None,
            password=fields.get("password") or None,
            headers=dict(headers),
            allow_private_networks=allow,
            token_url=extra.get("token_url") or None,
        )


def _failed(connection: str, faults: list[Fault]) -> ValidationFailed:
    return ValidationFailed(f"connection {connection}", faults)


def _extra(value: object, faults: list[Fault]) -> Mapping[str, Any]:
    if value is None or value == "":
        return {}
    if isinstance(value, str | bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            value = None
    if isinstance(value, Mapping):
        return value
    faults.append(Fault(field="extra", value=None, problem="must be a JSON object"))
    return {}


def _extra_faults(extra: Mapping[str, Any]) -> Iterator[Fault]:
    allow = extra.get("allow_private_networks", False)
    if not isinstance(allow, bool):
        yield Fault(field="extra.allow_private_networks", value=allow, problem="must be true or false")
    if (token_url := extra.get("token_url") or None) is not None:
        problem = token_url_problem(token_url) if isinstance(token_url, str) else "must be text"
        if problem:
            # Its value may hold a password.
            yield Fault(field="extra.token_url", value=None, problem=problem)
    headers = extra.get("headers") or {}
    if not isinstance(headers, Mapping):
        yield Fault(field="extra.headers", value=None, problem="must be an object of header names and values")
    else:
        yield from _header_faults(headers)
    # Other keys belong to Airflow's own HttpHook; only a misspelt one of ours is a fault.
    for name in extra:
        close = None if name in _EXTRA else did_you_mean(str(name), _EXTRA)
        if close:
            yield Fault(field=f"extra.{name}", value=None, problem=f"is not known; did you mean {close!r}?")


def _header_faults(headers: Mapping[Any, Any]) -> Iterator[Fault]:
    for name, value in headers.items():
        if not isinstance(value, str) or any(ord(c) < 32 or ord(c) == 127 for c in f"{name}{value}"):
            yield Fault(
                field=f"extra.headers.{name}", value=None, problem="must be text without control characters"
            )


def _text_faults(fields: Mapping[str, Any]) -> Iterator[Fault]:
    for name in ("login", "password"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            yield Fault(field=name, value=None, problem="must be text")
        elif any(c in value for c in "\r\n\0"):
            yield Fault(field=name, value=None, problem="must not hold line breaks or NUL")


def _base_url(fields: Mapping[str, Any], faults: list[Fault]) -> str:
    host = fields.get("host")
    if not isinstance(host, str) or not host.strip():
        faults.append(Fault(field="host", value=host, problem="is required: a host name or http(s)://host"))
        return ""
    host = host.strip().rstrip("/")
    if "@" in host.partition("://")[2].partition("/")[0] or "@" in host.partition("/")[0]:
        # Its value may be a password.
        problem = "must not hold credentials: login and password are fields of their own"
        faults.append(Fault(field="host", value=None, problem=problem))
        return ""
    # Airflow's HttpHook reads a connection the same way: a scheme in the host wins over the field `schema`.
    text = host if "://" in host else f"{fields.get('schema') or 'http'}://{host}"
    return _checked_url(text, fields.get("port"), faults)


def _checked_url(text: str, port: object, faults: list[Fault]) -> str:
    try:
        url = parse_url(text)
    except ValueError as error:
        faults.append(Fault(field="host", value=text, problem=f"is not a URL: {error}"))
        return ""
    before = len(faults)
    if url.scheme not in ("http", "https"):
        faults.append(
            Fault(field="schema", value=url.scheme, problem="is not known", allowed=("http", "https"))
        )
    if not url.raw_host:
        faults.append(Fault(field="host", value=text, problem="names no host"))
    if url.query_string or url.fragment:
        faults.append(Fault(field="host", value=None, problem="must not hold a query or fragment"))
    number = _port(port, faults)
    if len(faults) > before:
        return ""
    if number is not None:
        url = url.with_port(number)
    return str(url).rstrip("/")


def _port(port: object, faults: list[Fault]) -> int | None:
    if port is None or port == "":
        return None
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        return port
    faults.append(Fault(field="port", value=port, problem="must be 1 to 65535"))
    return None
