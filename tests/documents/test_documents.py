"""Every block of the documents is run, loaded, or says why not; and wrong examples of each kind are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.blocks import Block, DocumentFault, blocks_in, blocks_of
from tests.documents.checks import CHECKOUT, Runner, check_commands, load, what_is_done_with
from tests.documents.commands import command_faults, make_targets, sentences_code
from tests.documents.console import commands_of, compare, with_ids
from tests.documents.session import Session

DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
BLOCKS = [block for path in DOCUMENTS for block in blocks_in(path, CHECKOUT)]
SOURCE = """\
name: readings
connection: example_api
request: {path: /offset}
records: rows
target: {table: readings}
"""


def block(language: str, body: str, **marks: str) -> Block:
    return Block(document="x.md", line=1, language=language, body=body, marks=marks)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    (tmp_path / ".stack").symlink_to(CHECKOUT / ".stack")
    with Session(tmp_path, tmp_path / "no-stack") as session:
        yield Runner(session=session, desk=tmp_path)


@pytest.mark.parametrize("each", BLOCKS, ids=lambda each: each.place)
def test_every_block_is_run_or_says_why_not(each: Block, tmp_path: Path) -> None:
    done = what_is_done_with(each)
    check_commands(each)
    if done == "loaded":
        load(each, tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_sentences_are_there(path: Path) -> None:
    targets = make_targets(CHECKOUT)
    code = sentences_code(path.read_text(encoding="utf-8"))
    faults = [fault for text in code for fault in command_faults(text, targets)]
    assert faults == []


# The harness itself: an example of each kind that is right, and what is noticed of one that is wrong.


RIGHT = [
    block("console", "$ echo 'task 7, now QUEUED, 1.5 s'\ntask 62, now QUEUED, 2 s\n"),
    block("console", "$ (exit 3)   # refused; exit status 3\n"),
    block("console", "$ printf 'a\\nb\\nc\\n'\na\n…\nc\n"),
    block("console", "$ echo 'one\n> two'\none\n> two\n"),
    block("bash", 'test "$(echo x)" = x\n'),
    block("sh", "true\n"),
    block("python", "import collect_ops.sources.load\n"),
    block("javascript", 'import { ok } from "node:assert";\nok(true);\n'),
    block("yaml", SOURCE),
    block("yaml", "priority: 7\n", **{"a part of a source; the rest": "none"}),
    block("yaml", "while_waiting: {}\n", **{"not run here": "no such rules"}),
    block("yaml", "target_s: 20\n", rules="sharding"),
    block("json", '{"schema": 1, "source": "flights"}', schema="inbox"),
]
WRONG = [
    (block("console", "$ false\n"), "exit status 1, not 0"),
    (block("console", "$ true   # exit status 2\n"), "exit status 0, not 2"),
    (block("console", "$ echo admitted\nrefused\n"), "not printed: 'refused'"),
    (block("console", "$ printf 'a\\nb\\n'\na\n"), "printed, and not in the document: 'b'"),
    (block("console", "$ printf 'a\\nb\\n'\na\nb\nc\n"), "not printed: 'c'"),
    (block("console", "$ echo 5 rows\nno rows\n"), "not printed"),
    (block("console", "no command\n"), "begins with a command"),
    (block("console", "$ exit 0\n"), "ended the shell"),
    (block("bash", "false\ntrue\n"), "exit status 1"),
    (block("sh", "echo $nobody_set_this\n"), "unbound variable"),
    (block("python", "from collect_ops.sources.load import nothing\n"), "ImportError"),
    (block("javascript", "nothing();\n"), "ReferenceError"),
    (block("yaml", SOURCE.replace("path:", "paht:")), "paht"),
    (block("yaml", "priority: 7\n"), "a part of a source"),
    (block("yaml", "priority: 77\n", **{"a part of a source; the rest": "none"}), "priority"),
    (block("yaml", "target_seconds: 20\n", rules="sharding"), "target_seconds"),
    (block("json", '{"schema": 1, "sauce": "flights"}', schema="inbox"), "sauce"),
    (block("json", "{}"), "nothing can be done with a block of json"),
    (block("text", "a picture\n"), "nothing can be done with a block of text"),
    (block("", "anything\n"), "no language"),
    (block("console", "$ true\n", first="$ false"), "exit status 1"),
]


@pytest.mark.parametrize("right", RIGHT, ids=lambda each: each.language)
def test_a_right_example_passes(right: Block, runner: Runner) -> None:
    if "not run here" not in right.marks:
        runner.run(right)


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=lambda each: getattr(each, "language", ""))
def test_a_wrong_example_fails(wrong: Block, reason: str, runner: Runner) -> None:
    with pytest.raises(DocumentFault) as caught:
        runner.run(wrong)
    assert reason in str(caught.value)
    assert "x.md:1" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "$ collect-ops source chekc flights",
        "$ collect-ops source check flights --onlin",
        "$ true && AIRFLOW_CONN_X=y collect-ops submit flights --prio 3 | cat",
        "$ make dmeo",
    ],
)
def test_a_command_that_is_not_there_is_noticed_where_nothing_is_run(line: str) -> None:
    with pytest.raises(DocumentFault, match="no such"):
        check_commands(block("console", f"{line}\n", **{"not run here": "a test"}))


def test_marks_stand_directly_before_their_block() -> None:
    comments = "<!-- file: a.yaml -->\n\nWords.\n\n<!-- not run here: Docker -->\n<!-- first:\n$ true\n-->\n"
    text = f"{comments}\n```console\n$ x\n```\n"
    (found,) = blocks_of(text, "x.md")
    assert found.marks == {"not run here": "Docker", "first": "$ true"}
    assert found.place == "x.md:11"


@pytest.mark.parametrize("comment", ["not run: Docker", "not run here:", "run"])
def test_a_comment_that_is_no_mark_is_noticed(comment: str) -> None:
    with pytest.raises(DocumentFault, match="is no mark"):
        list(blocks_of(f"<!-- {comment} -->\n```console\n$ x\n```\n", "x.md"))


def test_a_fence_that_is_never_closed_is_noticed() -> None:
    with pytest.raises(DocumentFault, match="never closed"):
        list(blocks_of("```console\n$ x\n", "x.md"))


def test_ids_of_the_document_become_those_of_this_run() -> None:
    bound = compare(
        ("task 62 admitted", "letter 17 of group 3f0c9a…"), "task 815 admitted\nletter 9 of group ab12\n"
    )
    assert bound == {"62": "815", "17": "9", "3f0c9a…": "ab12"}
    assert with_ids("status 62 -g 3f0c9a… --rows 620 -p day=2026-01-17", bound) == (
        "status 815 -g ab12 --rows 620 -p day=2026-01-17"
    )


def test_a_command_goes_on_over_lines_while_a_quotation_is_open() -> None:
    first, second = commands_of(
        '$ psql -c "SELECT 1,\n         2"   # it\'s two\n 1 | 2\n$ a \\\n  b\n', "x.md:1"
    )
    assert (first.text.count("\n"), first.output) == (1, (" 1 | 2",))
    assert second.text == "a \\\n  b"
