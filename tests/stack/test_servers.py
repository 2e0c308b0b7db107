"""Servers from another Debian's file tree: which are taken, how they are started, what runs."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from stack import postgres, rabbitmq, redis, servers, settings, versions
from stack.faults import BadSetting, MissingProgram, StackError
from stack.layout import Layout
from stack.ports import Ports
from stack.settings import Stack

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
#: Which namespace, and who.
WHERE = ["/bin/sh", "-c", "readlink /proc/self/ns/mnt; id -un; grep -c ' /usr ' /proc/self/mountinfo; exit 7"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Another Debian with two releases of PostgreSQL, and without RabbitMQ."""
    root = tmp_path / "tree"
    for name in (
        "usr/bin/redis-server",
        "usr/lib/postgresql/9/bin/postgres",
        "usr/lib/postgresql/17/bin/postgres",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def stack_of(tmp_path: Path, tree: Path | None) -> Stack:
    return Stack(
        layout=Layout(home=tmp_path / "home"),
        ports=Ports.from_base(20_000),
        secrets={},
        server_tree=None if tree is None else str(tree),
    )


def test_programs_are_looked_up_in_the_tree_and_called_by_the_path_they_have_inside(
    tmp_path: Path, tree: Path
) -> None:
    stack = stack_of(tmp_path, tree)
    assert postgres.binary(stack, "postgres") == Path("/usr/lib/postgresql/17/bin/postgres")
    inside = postgres.command(stack)
    assert inside[:3] == ["/usr/bin/unshare", "--mount", "--propagation"]
    assert inside[inside.index(str(tree / "usr")) + 1] == "/usr/bin/setpriv"
    assert inside[-3:-1] == ["/usr/lib/postgresql/17/bin/postgres", "-D"]
    assert redis.command(stack)[-2:] == ["/usr/bin/redis-server", str(stack.layout.etc / "redis.conf")]
    assert "/usr/bin/setpriv" not in redis.command(stack)
    for missing in (rabbitmq.command, rabbitmq.epmd_command):
        with pytest.raises(MissingProgram):
            missing(stack)


def test_without_a_tree_this_systems_programs_are_started_directly(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, None)
    assert rabbitmq.command(stack) == [str(rabbitmq.SERVER)]
    assert Path(postgres.command(stack)[0]).name == "postgres"
    assert Path(redis.command(stack)[0]).name == "redis-server"


@as_root
def test_a_tree_is_remembered_and_belongs_to_the_stack_that_was_made_with_it(
    tmp_path: Path, tree: Path
) -> None:
    layout = Layout(home=tmp_path / "home")
    given = {"SERVER_TREE": str(tree)}
    assert settings.load_or_create(layout, given).server_tree == str(tree)
    assert settings.load_or_create(layout, {}).server_tree == str(tree)
    assert settings.load(layout).server_tree == str(tree)
    assert settings.load_or_create(layout, given).server_tree == str(tree), "the same again"
    other = tmp_path / "other"
    (other / "usr" / "bin").mkdir(parents=True)
    with pytest.raises(BadSetting, match="SERVER_TREE"):
        settings.load_or_create(layout, {"SERVER_TREE": str(other)})


def test_a_stack_without_a_tree_gets_none_later(tmp_path: Path, tree: Path) -> None:
    layout = Layout(home=tmp_path / "home")
    assert settings.load_or_create(layout, {"SERVER_TREE": ""}).server_tree is None
    with pytest.raises(BadSetting, match="SERVER_TREE"):
        settings.load_or_create(layout, {"SERVER_TREE": str(tree)})


def test_what_is_no_tree_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home")
    with pytest.raises(BadSetting, match=r"SERVER_TREE.*usr/bin"):
        settings.load_or_create(layout, {"SERVER_TREE": str(tmp_path)})
    assert settings.read_settings(layout) == {}


@as_root
@pytest.mark.parametrize("user", [None, "postgres"])
def test_a_program_runs_in_a_mount_namespace_of_its_own_with_the_trees_usr(
    tmp_path: Path, user: str | None
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "usr").symlink_to("/usr")
    if user is not None and user not in {each.pw_name for each in pwd.getpwall()}:
        pytest.skip(f"there is no user {user}")
    before = Path("/proc/self/mountinfo").read_text()
    done = subprocess.run(
        servers.inside(str(tree), WHERE, user), capture_output=True, text=True, check=False, cwd="/"
    )
    namespace, name, mounts = done.stdout.split()
    assert (name, int(mounts) >= 1, done.returncode) == (user or "root", True, 7), done.stderr
    assert namespace != str(Path("/proc/self/ns/mnt").readlink())
    assert Path("/proc/self/mountinfo").read_text() == before


FOUND = {"postgres": "17.12", "redis": "8.0.2", "rabbitmq": "4.10.0-rc.1"}


@pytest.mark.parametrize(
    "least", ["postgres=17", "postgres=17.12,redis=8", "rabbitmq=4.9", "rabbitmq=4.10.0", "rabbitmq=3.13.7"]
)
def test_servers_that_are_new_enough(least: str) -> None:
    versions.demand(FOUND, versions.parsed(least, FOUND))


def test_all_that_are_too_old_are_named() -> None:
    with pytest.raises(StackError) as caught:
        versions.demand(FOUND, versions.parsed("postgres=18,redis=8.0.3,rabbitmq=4.10", FOUND))
    assert [name for name in FOUND if name in str(caught.value)] == ["postgres", "redis"]


@pytest.mark.parametrize("least", ["", "postgres", "postgres=", "mysql=8", "redis=8,,", "redis=new"])
def test_a_demand_that_cannot_be_read_is_refused(least: str) -> None:
    with pytest.raises(BadSetting, match="--at-least"):
        versions.parsed(least, FOUND)


def test_a_server_that_does_not_run_is_named(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home")
    with pytest.raises(StackError, match="postgres"):
        versions.running(settings.load_or_create(layout, {}))
