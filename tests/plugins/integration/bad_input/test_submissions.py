"""A thousand malformed messages and a thousand odd submissions: each is told why, and the good ones are admitted."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collect_ops.admission.inbox import run_once
from collect_ops.admission.model import Admission
from collect_ops.kernel.errors import CollectOpsError
from tests.examples import examples
from tests.plugins.integration.admission.inbox_broker import DEAD, INBOX, Producer, depth, drain
from tests.plugins.integration.bad_input.malformed import malformed
from tests.plugins.integration.world import World, source

BAD, GOOD = 1_000, 200


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def test_a_thousand_malformed_messages(world: World) -> None:
    bad = malformed(BAD, seed=20261125)
    chance = random.Random(7)
    asking = set(chance.sample(range(BAD), 300))
    with Producer(world.backends.amqp_url) as producer:
        producer.channel.queue_purge(DEAD)
        good = iter(range(GOOD))
        for number, (body, properties) in enumerate(bad):
            if number % 5 == 0:
                day = str(next(good))
                producer.ask({"schema": 1, "source": "things", "params": {"day": day}}, f"good {day}")
            if number in asking and "reply_to" not in properties:
                producer.ask(body, f"bad {number}", **properties)
            else:
                asking.discard(number)
                producer.publish(body, correlation_id=f"bad {number}", **properties)
        done = run_once(world.backends, world.rules, world.runs, sources=world.find, time_limit_s=60)
        answers = producer.answers()
    assert done.admitted == GOOD
    assert done.malformed + done.refused == BAD
    assert (done.repeated, done.duplicates, done.left, done.more) == (0, 0, 0, False)
    assert depth(world.backends.amqp_url, INBOX) == 0

    letters = drain(world.backends.amqp_url, DEAD)
    assert all(letter.headers["error-message"] for letter in letters)
    dead = {str(letter.headers["original-correlation-id"]): letter.body for letter in letters}
    assert len(dead) == len(letters) == done.dead
    told = {name for name, answer in answers.items() if answer.get("error")}
    assert told == {f"bad {number}" for number in asking}
    assert told | set(dead) == {f"bad {number}" for number in range(BAD)}, "answered or dead-lettered, each"
    assert set(dead.values()) <= {body for body, _ in bad}, "the bodies are as they came"

    tasks = world.rows("SELECT id, params ->> 'day' AS day, status FROM collect.task")
    assert {(row["day"], row["status"]) for row in tasks} == {
        (str(number), "QUEUED") for number in range(GOOD)
    }
    assert {answers[f"good {row['day']}"]["task_id"] for row in tasks} == {row["id"] for row in tasks}


NUMBERS = st.integers() | st.floats() | st.sampled_from([63, 64, 1_000, 20_000]).map(lambda bits: 2**bits)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "a\0b", "x" * 9000])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


ODD = VALUES | st.sampled_from([65, 300, 3_000]).map(deep)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["things", "thing", "", "\0", "../things"]),
        "params": st.dictionaries(st.sampled_from(["day", "dya", "", "\0"]), ODD, max_size=2) | ODD,
        "path": st.text(max_size=20) | ODD,
        "priority": st.integers(-2, 12) | ODD,
        "identity": st.dictionaries(st.text(max_size=3), ODD, max_size=2) | ODD,
        "submitted_by": st.text(max_size=10),
        "force": st.booleans() | ODD,
        "deadline": ODD,
    },
)
UNIQUE = itertools.count()


@settings(
    max_examples=examples(6),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=st.lists(FIELDS, min_size=40, max_size=40))
def test_hundreds_of_odd_submissions(world: World, batch: list[dict[str, Any]]) -> None:
    """Batches of 40: what pydantic lets through is admitted or refused one by one, beside good ones."""
    submissions, good = [], []
    for fields in batch:
        try:
            submissions.append(world.submission(**{"name": "things", **_renamed(fields)}))
        except ValidationError as error:
            assert error.errors(include_input=False)
        if len(submissions) % 8 == 0:
            good.append(len(submissions))
            submissions.append(world.submission(params={"day": f"good {next(UNIQUE)}"}))
    answers = world.service().admit_batch(submissions)
    assert all(isinstance(answers[index], Admission) for index in good)
    for answer in answers:
        if isinstance(answer, CollectOpsError):
            json.dumps(str(answer))
            assert str(answer)


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    return {"name" if name == "source" else name: value for name, value in fields.items()}
