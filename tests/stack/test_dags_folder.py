"""Another folder of DAGs reaches the programs through the supervisor, which keeps little of its environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stack import environment
from stack.layout import CHECKOUT, Layout
from stack.settings import load_or_create

IN_A_CHILD = """
import sys
from pathlib import Path
from stack import environment
from stack.layout import Layout
from stack.settings import load
print(environment.airflow(load(Layout(home=Path(sys.argv[1]))))["AIRFLOW__CORE__DAGS_FOLDER"])
"""


@pytest.mark.parametrize("folder", ["/another/folder", None])
def test_a_child_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
    layout = Layout(home=tmp_path / "home")
    load_or_create(layout, {})
    if folder:
        monkeypatch.setenv(environment.DAGS_FOLDER, folder)
    variables = {**environment.base(), "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'plugins'}"}
    command = [sys.executable, "-c", IN_A_CHILD, str(layout.home)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (folder or str(CHECKOUT / "dags"))
