"""`collect-ops connection add | test`: where sources are, and who asks there."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collect_ops.sources.model import Source

app = typer.Typer(help="Airflow connections of sources: add one, test one.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The connection's id, as source files name it.")]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)
#: The stack's own come from its environment, which would hide one that is added.
_OWN = ("collect_postgres", "collect_redis", "collect_rabbitmq", "collect_airflow")

#: The options that a connection's fields come from.
_OPTIONS = {
    "host": "--host", "schema": "--host", "port": "--host", "login": "--login", "password": "stdin",
    "extra.token_url": "--token-url",
}  # fmt: skip


@app.command()
def add(
    name: Name,
    host: Annotated[
        str, typer.Option(help="Base URL: https://api.example.com, with a port and path or without.")
    ],
    login: Annotated[str | None, typer.Option(help="User name (basic) or client id (oauth2).")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password, API key or client secret from stdin.")
    ] = False,
    bearer_stdin: Annotated[
        bool, typer.Option("--bearer-stdin", help="Read a bearer token from stdin; goes with no login.")
    ] = False,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the secret on the terminal.")] = False,
    token_url: Annotated[str | None, typer.Option(help="Where tokens are given out (oauth2).")] = None,
    allow_private_networks: Annotated[
        bool, typer.Option("--allow-private-networks", help="Private and loopback addresses may be asked.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace one of this name, its secret included.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Define a connection in Airflow. Secrets come from stdin or are asked for: arguments are everybody's to read.

    Exit status 1 when there is one of this name already, 2 for bad input.

    Examples: collect-ops connection add flights_api --host https://api.example.com ·
    collect-ops connection add partner_api --host https://partner.example.com --login me --password-stdin < secret.txt
    """
    from collect_ops.cli.output import FAILED, print_error, print_json
    from collect_ops.lanes.rest_runs import RestRuns

    _check(name, {"--password-stdin": password_stdin, "--bearer-stdin": bearer_stdin, "--ask": ask}, login)
    extra: dict[str, Any] = {"allow_private_networks": True} if allow_private_networks else {}
    if token_url is not None:
        extra["token_url"] = token_url
    fields: dict[str, Any] = {"conn_type": "http", "host": host, "login": login, "extra": extra}
    _demand_endpoint(fields, name)
    fields["password"] = _secret(ask=ask, stdin=password_stdin or bearer_stdin)
    _demand_endpoint(fields, name)
    added = RestRuns.from_environment().save_connection(
        name, {**fields, "description": description}, replace=replace
    )
    if as_json:
        print_json({"connection": name, "host": host, "login": login, "saved": added, "extra": extra})
    elif added:
        typer.echo(
            f"connection {name}: {'replaced' if replace else 'added'}; collect-ops connection test {name}"
        )
    if not added:
        print_error(f"connection {name} is there already: --replace replaces it, its secret included")
        raise typer.Exit(FAILED)


def _check(name: str, ways: Mapping[str, bool], login: str | None) -> None:
    from collect_ops.kernel.errors import Fault, ValidationFailed

    faults = []
    if not _NAME.fullmatch(name):
        problem = "must be letters, digits, dots, dashes and underscores, 200 at most"
        faults.append(Fault(field="NAME", value=name, problem=problem))
    elif name in _OWN:
        faults.append(
            Fault(field="NAME", value=name, problem="is one of the stack's own, which it sets itself")
        )
    given = [option for option, chosen in ways.items() if chosen]
    if len(given) > 1:
        faults.append(Fault(field=given[1], value=None, problem=f"does not go with {given[0]}"))
    if login is not None and ways["--bearer-stdin"]:
        faults.append(Fault(field="--login", value=login, problem="does not go with --bearer-stdin"))
    if ways["--ask"] and not sys.stdin.isatty():
        faults.append(Fault(field="--ask", value=None, problem="needs a terminal; else --password-stdin"))
    if faults:
        raise ValidationFailed("command line", faults)


def _demand_endpoint(fields: Mapping[str, Any], name: str) -> None:
    """Refuse what no source could use.

    Raises:
        ValidationFailed: It has faults; none of them shows a secret.
    """
    from dataclasses import replace

    from collect_ops.collectors.endpoint import Endpoint
    from collect_ops.kernel.errors import ValidationFailed

    try:
        Endpoint.from_mapping(fields, connection=name)
    except ValidationFailed as failed:
        faults = [replace(fault, field=_OPTIONS.get(fault.field, fault.field)) for fault in failed.faults]
        raise ValidationFailed("command line", faults) from failed


def _secret(*, ask: bool, stdin: bool) -> str | None:
    """What was given; None where nothing was asked for.

    Raises:
        ValidationFailed: Nothing came.
    """
    from collect_ops.kernel.errors import Fault, ValidationFailed

    if not ask and not stdin:
        return None
    secret = (
        str(typer.prompt("secret", hide_input=True, err=True)) if ask else sys.stdin.read().rstrip("\r\n")
    )
    if not secret:
        raise ValidationFailed("command line", [Fault(field="stdin", value=None, problem="holds no secret")])
    return secret


@app.command("test")
def send_request(
    name: Name,
    path: Annotated[str | None, typer.Option(help="What to ask for; the source's path, or /.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Authenticate as this source does; else as the first that uses it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send one request: does somebody answer there, and let us in? Exit status 1 when not, 2 for bad input.

    A source that uses the connection says how to authenticate; without one the request is sent without credentials.

    Example: collect-ops connection test flights_api --path /v1/flights
    """
    import asyncio
    import time

    from collect_ops.cli.output import FAILED, print_error, print_json
    from collect_ops.kernel.errors import CollectOpsError

    probe, like = _probe(name, path, source)
    began = time.monotonic()
    problem: CollectOpsError | None = None
    answer = ""
    try:
        answer = asyncio.run(_ask(probe))
    except CollectOpsError as error:
        from collect_ops.kernel.errors import ValidationFailed

        if isinstance(error, ValidationFailed):
            raise
        problem = error
    took_s = time.monotonic() - began
    way = f"auth.type {probe.auth.type}" + (f" of source {like}" if like else "")
    if as_json:
        print_json(
            {
                "connection": name,
                "ok": problem is None,
                "answer": answer,
                "problem": None if problem is None else str(problem),
                "auth": probe.auth.type,
                "source": like,
                "seconds": round(took_s, 3),
            }
        )
    elif problem is None:
        typer.echo(f"ok  {name}: {answer} ({way}, {took_s:.2f} s)")
    else:
        print_error(f"{name}: {problem} ({way})")
    if problem is not None:
        raise typer.Exit(FAILED)


def _probe(name: str, path: str | None, source: str | None) -> tuple[Source, str | None]:
    """A source of one request over the connection, and whose authentication it has.

    Raises:
        ValidationFailed: The path is none, or the source uses another connection.
        UnknownSource: It is not declared.
    """
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.sources.load import get_source, load_sources
    from collect_ops.sources.model import Source

    if not _NAME.fullmatch(name):
        problem = "must be letters, digits, dots, dashes and underscores, 200 at most"
        raise ValidationFailed("command line", [Fault(field="NAME", value=name, problem=problem)])
    if path is not None and (not path.startswith("/") or any(sign in path for sign in "{}?# ")):
        problem = "must begin with /, without query and places to fill in"
        raise ValidationFailed("command line", [Fault(field="--path", value=path, problem=problem)])
    like = get_source(source) if source is not None else None
    if like is not None and like.connection != name:
        fault = Fault(field="--source", value=source, problem=f"uses connection {like.connection}")
        raise ValidationFailed("command line", [fault])
    if like is None:
        users = [each for each in load_sources().sources.values() if each.connection == name]
        like = users[0] if users else None
    own_path = like.request.path if like is not None and "{" not in like.request.path else "/"
    declared: dict[str, Any] = {
        "name": "connection_test",
        "connection": name,
        "request": {"path": path or own_path},
        "paging": {"type": "none"},
        "retries": {"http_attempts": 1},
        "target": {"table": "connection_test", "disposition": "append"},
    }
    if like is not None:
        declared["auth"] = like.auth.model_dump(mode="json", exclude_unset=True) | {"type": like.auth.type}
    return Source.model_validate(declared), None if like is None else like.name


async def _ask(probe: Source) -> str:
    """What came; an answer that is no data, or none of this path, is an answer all the same.

    Raises:
        CollectOpsError: Nobody answered, or we were not let in.
    """
    import contextlib

    from collect_ops.cli.connections import endpoint_of
    from collect_ops.collectors import errors
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.collectors.page import Span
    from collect_ops.sources.request import render

    # Bodies of another shape than a list of rows: what they hold is not asked here.
    shapes = (
        errors.NotJson, errors.RecordsNotAList, errors.ExpressionFailed, errors.NestedTooDeep, errors.PageTooLarge,
    )  # fmt: skip
    answered = (errors.UrlNotFound, errors.RequestRefused, errors.NotModifiedUnasked, errors.HostBusy)
    async with (
        HttpCollector(probe, render(probe, {}), endpoint_of(probe)) as collector,
        contextlib.aclosing(collector.pages(Span())) as pages,
    ):
        try:
            async for page in pages:
                return f"{page.request.get('url', probe.request.path)} answered"
        except shapes as error:
            return f"{error.url} answered"
        except answered as error:
            return f"somebody answers there: {error}"
    return "answered, with an empty page"
