"""DAG files are light, do no I/O when parsed, and a faulty source takes nothing else down."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dags.warm_python import WarmPython

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / "dags").glob("*.py"))

PARSE = """
import json, runpy, socket, sys, time
began = time.perf_counter()
runpy.run_path({path!r})
warm = time.perf_counter() - began
def refuse(*_): raise OSError("a DAG file opened a connection while it was parsed")
socket.socket.connect = refuse
began = time.perf_counter()
runpy.run_path({path!r})
again = time.perf_counter() - began
heavy = sorted(set(sys.modules) & {{"great_expectations", "pandas", "numpy", "fastapi"}})
print(json.dumps({{"sdk": sdk, "warm": warm, "again": again, "heavy": heavy}}))
"""


PARSE_ALL = """
import json, pathlib, runpy
failed = []
for path in {paths}:
    try:
        runpy.run_path(path)
    except Exception:
        failed.append(pathlib.Path(path).stem)
print(json.dumps(failed))
"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    """Every DAG file is parsed by a process that has imported Airflow's SDK and nothing of ours."""
    with WarmPython({"PYTHONPATH": str(CHECKOUT / "plugins")}) as warm:
        yield warm


@pytest.fixture
def run(python: WarmPython) -> Run:
    """Runs code in a process of its own, with declarations of its own."""

    def run(code: str, include: Path | None = None) -> subprocess.CompletedProcess[str]:
        return python.run(code, {} if include is None else {"COLLECT_OPS_INCLUDE": str(include)})

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_light_and_silent(path: Path, run: Run) -> None:
    done = run(PARSE.format(path=str(path)))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["heavy"] == []
    # Against the import that every DAG file pays: what ours adds at first, and when the parent has it already.
    assert found["warm"] < found["sdk"], found
    assert found["again"] < found["sdk"] / 10, found


@pytest.fixture
def faulty_include(tmp_path: Path) -> Path:
    """The declarations, with one file that is no YAML and one that has faults."""
    include = tmp_path / "include"
    shutil.copytree(CHECKOUT / "include", include)
    (include / "sources" / "broken.yaml").write_text("name: [broken\n")
    (include / "sources" / "wrong.yaml").write_text("name: wrong\nconection: x\ntarget: {table: t}\n")
    return include


def test_a_faulty_source_takes_no_dag_down(faulty_include: Path, run: Run) -> None:
    done = run(PARSE_ALL.format(paths=[str(path) for path in FILES]), faulty_include)
    assert json.loads(done.stdout.splitlines()[-1]) == ["source_faults"], done.stderr[-2000:]


def test_a_faulty_source_shows_as_an_import_error_with_its_faults(faulty_include: Path, run: Run) -> None:
    done = run(PARSE.format(path=str(CHECKOUT / "dags" / "source_faults.py")), faulty_include)
    assert "broken.yaml" in done.stderr
    assert "wrong.yaml" in done.stderr
    assert "connection" in done.stderr


SAFE_MODE = """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.file import list_py_file_paths
bag = DagBag(dag_folder={folder!r}, safe_mode=True)
read = list_py_file_paths({folder!r}, safe_mode=True)
print(json.dumps({{"errors": bag.import_errors, "dags": sorted(bag.dags), "read": read}}))
"""


def test_in_safe_mode_faults_are_import_errors_and_all_other_dags_are_there(
    faulty_include: Path, run: Run
) -> None:
    """Safe mode is how Airflow runs: it skips files that do not look like those of DAGs."""
    (faulty_include / "sources" / "key.yaml").write_text(
        'name: key\nconnection: x\ntarget: {table: t, key: ["a b"]}\n"a\\0": 1\n'
    )
    done = run(SAFE_MODE.format(folder=str(CHECKOUT / "dags")), faulty_include)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {Path(path) for path in found["read"]} == set(FILES)
    (shown,) = found["errors"].values()
    assert [Path(path).stem for path in found["errors"]] == ["source_faults"]
    for words in ("broken.yaml", "wrong.yaml", "key.yaml", "target.key.0"):
        assert words in shown
    assert "\0" not in shown  # PostgreSQL would not store it
    assert {"source_flights", "collect_sweep"} <= {*found["dags"]}


def test_a_source_described_by_the_name_of_a_file_takes_no_dag_down(faulty_include: Path, run: Run) -> None:
    described = faulty_include / "sources" / "described.yaml"
    described.write_text(
        f"name: described\nconnection: x\ntarget: {{table: t}}\ndescription: {'x' * 5000}.md\n"
    )
    done = run(PARSE_ALL.format(paths=[str(path) for path in FILES]), faulty_include)
    assert json.loads(done.stdout.splitlines()[-1]) == ["source_faults"], done.stderr[-2000:]


def test_tasks_do_not_touch_airflows_database() -> None:
    """`dag.test()` would not notice: real task processes may not use the ORM. The dag-processor may."""
    forbidden = ("airflow.models", "airflow.utils.session", "create_session", "airflow.settings")
    offenders = [
        (path.name, word)
        for path in (CHECKOUT / "plugins" / "collect_ops").rglob("*.py")
        for word in forbidden
        if path.name != "dag_bundle.py" and word in path.read_text()
    ]
    assert offenders == []
