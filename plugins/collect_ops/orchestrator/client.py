"""Airflow's REST API: signing in, sending, and what its errors mean here."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx

from collect_ops.kernel.backends import SettingMissing
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.masking import mask, mask_beginning
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable

#: Tokens live a day by default; a new one an hour costs nothing.
_TOKEN_LIFETIME_S = 3600.0
_VARIABLES = ("COLLECT_AIRFLOW_URL", "COLLECT_AIRFLOW_USER", "COLLECT_AIRFLOW_PASSWORD")
#: The least that a request is given when the time is nearly up: less never succeeds.
_LEAST_S = 0.05
#: Seconds that a call may take when nobody has said how long all of them may.
CALL_LIMIT_S = 30.0
# Of an answer, in an error.
_SHOWN_CHARS = 300

T = TypeVar("T")


class AirflowClient:
    """Airflow's REST API as one user.

    Args:
        base_url: Airflow's address, without `/api/v2`.
        user: A user that may do what is asked.
        password: Their password.
        limit_s: Seconds that all requests together may take, counted from now; None gives each of them half a minute.

    Raises:
        AirflowUnavailable: The address is none.
    """

    def __init__(self, base_url: str, user: str, password: str, *, limit_s: float | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._client = self._open()
        self._credentials = {"username": user, "password": password}
        self._token: tuple[str, float] | None = None
        self._until = None if limit_s is None else time.monotonic() + limit_s
        self._call_limit_s = CALL_LIMIT_S

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """As COLLECT_AIRFLOW_URL, COLLECT_AIRFLOW_USER and COLLECT_AIRFLOW_PASSWORD say.

        Raises:
            SettingMissing: One of them is not set.
            ValidationFailed: The URL is none.
        """
        missing = tuple(name for name in _VARIABLES if not environment.get(name))
        if missing:
            raise SettingMissing(missing)
        url, user, password = (environment[name] for name in _VARIABLES)
        problem = "must begin with http:// or https://"
        try:
            scheme = httpx.URL(url).scheme
        except httpx.InvalidURL as error:
            scheme, problem = "", f"is no URL: {mask(str(error))}"
        if scheme not in ("http", "https"):
            fault = Fault(field=_VARIABLES[0], value=mask(url), problem=problem)
            raise ValidationFailed("environment", (fault,))
        return cls(url, user, password)

    @contextmanager
    def each_within(self, limit_s: float) -> Iterator[None]:
        """Calls within take so many seconds each at most."""
        before, self._call_limit_s = self._call_limit_s, limit_s
        try:
            yield
        finally:
            self._call_limit_s = before

    def demand(self, method: str, path: str, body: object = None, *, action: str) -> httpx.Response:
        """Call `/api/v2{path}`; the answer is a success.

        Args:
            method: HTTP method.
            path: Below `/api/v2`, quoted.
            body: Sent as JSON.
            action: What is asked, for the error: `pause DAG lane_bulk`.

        Raises:
            AirflowRefused: It is not.
            AirflowUnavailable: Airflow did not answer in time.
        """
        answer = self.request(method, path, body)
        if not answer.is_success:
            raise self.refusal(action, answer)
        return answer

    def refusal(self, action: str, answer: httpx.Response, *, secrets: Iterable[str] = ()) -> AirflowRefused:
        """The error of an answer that is no success.

        Args:
            action: What was asked.
            answer: What Airflow says.
            secrets: What was sent and must not be in the error; the own password and token never are.
        """
        return AirflowRefused(action, answer.status_code, self.detail(answer, secrets=secrets))

    def detail(self, answer: httpx.Response, *, secrets: Iterable[str] = ()) -> str:
        """What an answer says went wrong: it may repeat what was sent. See `refusal`."""
        return self.quote(_detail_of(answer), secrets=secrets)

    def quote(self, text: str, *, secrets: Iterable[str] = ()) -> str:
        """The beginning of what Airflow says, without what it must not repeat. See `refusal`."""
        own = [self._credentials["password"], *([self._token[0]] if self._token else [])]
        return mask_beginning(text, _SHOWN_CHARS, secrets=[*own, *secrets])

    def content_of(self, answer: httpx.Response, action: str, read: Callable[[Any], T]) -> T:
        """What an answer says.

        Args:
            answer: A success.
            action: What was asked, for the error: `show run collect_1`.
            read: Takes what is wanted out of the JSON.

        Raises:
            AirflowUnavailable: It is no JSON, or not what Airflow answers: something else listens there.
        """
        try:
            return read(answer.json())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            problem, text = self.quote(repr(error)), self.quote(answer.text)
            raise AirflowUnavailable(
                f"Airflow's REST API did not answer what it should to {action}: {problem} in {text!r}"
            ) from error

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Call `/api/v2{path}`, signed in; once more with a new token when the old one is refused.

        Raises:
            AirflowUnavailable: Airflow did not answer in time, or did not let us in.
        """
        try:
            answer = self._send(method, path, body)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                self._token = None
                answer = self._send(method, path, body)
        # Not every error of httpx is an HTTPError, and names and headers that cannot be encoded are ValueErrors.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # A header that cannot be sent is in the error, too.
            problem = self.quote(repr(error))
            raise self._unavailable(f"did not answer: {problem}; is the stack up (make status)?") from error
        return answer

    def _send(self, method: str, path: str, body: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._signed_in()}"}
        return self._call(
            lambda client, timeout: client.request(
                method, f"/api/v2{path}", headers=headers, json=body, timeout=timeout
            )
        )

    def _signed_in(self) -> str:
        if self._token is None or time.monotonic() > self._token[1]:
            answer = self._call(
                lambda client, timeout: client.post("/auth/token", json=self._credentials, timeout=timeout)
            )
            action = f"log in {self._credentials['username']}"
            if not answer.is_success:
                raise self.refusal(action, answer)
            token = self.content_of(answer, action, lambda content: str(content["access_token"]))
            self._token = (token, time.monotonic() + _TOKEN_LIFETIME_S)
        return self._token[0]

    def _call(self, call: Callable[[httpx.Client, httpx.Timeout], httpx.Response]) -> httpx.Response:
        """All of a call within its time, in a thread of its own that is left behind when the time is up.

        httpx bounds each read, which a server that sends a byte now and then draws out for ever, and the look-up of a
        name not at all.
        """
        left = self._call_limit_s
        if self._until is not None:
            left = min(left, self._until - time.monotonic())
        if left <= 0:
            raise self._unavailable("took all the time there was")
        client, timeout = self._client, self._timeout(left)
        outcome: Future[httpx.Response] = Future()

        def run() -> None:
            try:
                outcome.set_result(call(client, timeout))
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for it
                outcome.set_exception(error)

        threading.Thread(target=run, name="airflow-call", daemon=True).start()
        try:
            return outcome.result(left)
        except TimeoutError as error:
            # Closed under the thread that is left behind, so that it ends with its next read.
            self._client = self._open()
            client.close()
            raise self._unavailable(f"did not answer within {left:.1f} s") from error

    def _open(self) -> httpx.Client:
        try:
            client = httpx.Client(base_url=self._base_url, timeout=CALL_LIMIT_S, trust_env=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise self._unavailable(f"cannot be called: {error}") from error
        weakref.finalize(self, client.close)
        return client

    def _timeout(self, left: float) -> httpx.Timeout:
        """What is left for one request: a quarter of it to connect, the rest to wait for the answer."""
        if self._until is None:
            return httpx.Timeout(left)
        return httpx.Timeout(max(_LEAST_S, left / 4), read=max(_LEAST_S, left * 3 / 4))

    def _unavailable(self, problem: str) -> AirflowUnavailable:
        return AirflowUnavailable(f"Airflow's REST API at {mask(self._base_url)} {problem}")


def _detail_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return answer.text
