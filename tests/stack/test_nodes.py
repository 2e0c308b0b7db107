"""Worker hosts: what is told of them, their programs, their network for real."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.backends import Backends
from collect_ops.nodes.join import JoinFile
from collect_ops.policies import task_instance
from stack import bring_up, credentials, join, network, workers
from stack.faults import BadSetting, StackError
from stack.layout import Layout
from stack.node_settings import CELERY, LOCAL, NodeSettings, labels_of
from stack.ports import Ports
from stack.programs import BASE, programs
from stack.settings import Stack, load, load_or_create, read_settings, remember

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces")


def stack_with(nodes: NodeSettings, home: Path = Path("/nowhere")) -> Stack:
    return Stack(
        layout=Layout(home=home), ports=Ports.from_base(20_000), secrets=credentials.generate(), nodes=nodes
    )


def test_what_is_told_is_taken_and_the_rest_stays() -> None:
    before = NodeSettings().overridden({"NODES": "3", "WORKER_SLOTS": "4", "NODE_LABELS": "node-1:region=eu"})
    assert NodeSettings.remembered(json.loads(json.dumps(before.as_dict()))) == before
    assert before.overridden({}) == before.overridden({"NODES": ""}) == before
    assert before.overridden({"NODES": "0"}) == replace(before, count=0)
    assert before.overridden({"NODE_LABELS": ""}).labels == {}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"NODES": "three"}, "NODES: 'three' cannot be used; allowed: a number from 0 to 32"),
        ({"NODES": "33"}, "NODES: '33'"),
        ({"WORKER_SLOTS": "0"}, "WORKER_SLOTS: '0' cannot be used; allowed: a number from 1 to 200"),
        ({"NODE_LABELS": "node-1:eu"}, "NODE_LABELS: 'node-1:eu'"),
        ({"NODE_LABELS": "eu:region=eu"}, "node: 'eu' cannot be used"),
        ({"LISTEN": "0.0.0.0"}, "LISTEN: '0.0.0.0' cannot be used; allowed: one of this machine's addresses"),
        ({"LISTEN": "127.0.0.1"}, "LISTEN: '127.0.0.1'"),
        ({"LISTEN": "203.0.113.77"}, "LISTEN: '203.0.113.77'"),
        ({"LISTEN": "here"}, "LISTEN: 'here'"),
        ({"EXECUTOR": "Local"}, "EXECUTOR: 'Local' cannot be used; allowed: CeleryExecutor or LocalExecutor"),
        ({"EXECUTOR": LOCAL, "NODES": "1"}, "allowed: CeleryExecutor with worker hosts"),
    ],
)
def test_what_cannot_be_used_is_named(variables: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting) as caught:
        NodeSettings().overridden(variables)
    assert told in str(caught.value)


def test_the_executor_is_remembered_and_one_from_before_there_was_a_choice_is_known() -> None:
    assert NodeSettings().celery
    local = NodeSettings().overridden({"EXECUTOR": LOCAL})
    assert not local.celery
    assert NodeSettings.remembered(local.as_dict()).overridden({"EXECUTOR": ""}) == local
    # Worker hosts are Celery's; without them it is what it was.
    assert local.overridden({"NODES": "2"}).celery
    assert not local.overridden({"NODES": "2"}).overridden({"NODES": "0"}).celery
    before = {key: value for key, value in NodeSettings().as_dict().items() if key != "executor"}
    assert NodeSettings.remembered(before).executor == LOCAL
    assert NodeSettings.remembered({**before, "count": 2}).executor == CELERY


def test_an_older_stack_gets_a_worker_when_it_is_brought_up_again(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "stack")
    load_or_create(layout, {})
    known = read_settings(layout)["nodes"]
    remember(layout, nodes={key: value for key, value in known.items() if key != "executor"})
    assert not load(layout).nodes.celery
    assert load_or_create(layout, {}).nodes.celery
    assert load(layout).nodes.celery
    assert not load_or_create(layout, {"EXECUTOR": LOCAL}).nodes.celery
    assert not load_or_create(layout, {}).nodes.celery


def test_an_address_of_this_machine_can_be_listened_on() -> None:
    own = [
        each.address
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family is socket.AF_INET and name != "lo"
    ]
    assert own, "this machine has no address beside 127.0.0.1"
    assert NodeSettings().overridden({"LISTEN": own[0]}).addresses == (own[0],)
    assert NodeSettings(listen=own[0]).overridden({"LISTEN": ""}).addresses == ()


def test_labels_by_node() -> None:
    assert labels_of("node-1:region=eu,disk=ssd; node-2:region=us;") == {
        "node-1": {"region": "eu", "disk": "ssd"},
        "node-2": {"region": "us"},
    }


def test_programs_with_nodes_and_without() -> None:
    assert tuple(programs(stack_with(NodeSettings()))) == (*BASE, "worker")
    assert tuple(programs(stack_with(NodeSettings(executor=LOCAL)))) == tuple(BASE)
    nodes = NodeSettings(count=2, subnet="10.64.7.0/24", listen="192.0.2.9")
    names = list(programs(stack_with(nodes)))
    assert "agent" not in names
    assert names[-5:] == ["worker-control", "worker-1", "agent-1", "worker-2", "agent-2"]
    assert [name for name in names if name.startswith("relay-")] == [
        "relay-api", "relay-management", "relay-api-2", "relay-management-2",
    ]  # fmt: skip


def test_workers_start_when_what_they_report_to_is_there() -> None:
    stack = stack_with(NodeSettings(count=1))
    servers, hosts = bring_up.airflow_waves(list(programs(stack).values()))
    assert [program.name for program in servers] == [
        "api-server", "scheduler", "dag-processor", "triggerer", "watchdog",
    ]  # fmt: skip
    assert [program.name for program in hosts] == ["worker-control", "worker-1", "agent-1"]
    plain = bring_up.airflow_waves(list(programs(stack_with(NodeSettings())).values()))
    assert plain[1] == []


def test_more_nodes_leave_those_that_run_as_they_are() -> None:
    few, more = (stack_with(NodeSettings(count=count, subnet="10.64.7.0/24")) for count in (2, 3))
    more = replace(more, secrets=few.secrets)
    known = programs(few)
    assert all(program.shape(few) == programs(more)[name].shape(more) for name, program in known.items())
    none = replace(few, nodes=NodeSettings())
    stale = {
        name
        for name, program in programs(none).items()
        if program.shape(none) != programs(few).get(name, program).shape(few)
    }
    assert {"postgres", "redis", "rabbitmq", "api-server", "scheduler"} <= stale
    assert "epmd" not in stale


def test_a_worker_gets_nothing_that_only_servers_need() -> None:
    stack = stack_with(NodeSettings(count=1, subnet="10.64.7.0/24"))
    variables = workers.worker_environment(stack, "node-1")
    for secret in (
        "AIRFLOW_FERNET_KEY",
        "AIRFLOW_JWT_SECRET",
        "AIRFLOW_ADMIN_PASSWORD",
        "AIRFLOW_SERVICE_PASSWORD",
        "NODES_KEY",
        "POSTGRES_AIRFLOW_PASSWORD",
        "POSTGRES_COLLECT_PASSWORD",
        "POSTGRES_CONTROL_PASSWORD",
        "POSTGRES_SUPERUSER_PASSWORD",
        "RABBITMQ_CONTROL_PASSWORD",
        "RABBITMQ_PASSWORD",
        "REDIS_CONTROL_PASSWORD",
        "REDIS_PASSWORD",
    ):
        assert not [key for key, value in variables.items() if stack.secrets[secret] in value]
    assert not [key for key, value in variables.items() if "127.0.0.1" in value]


def test_a_node_has_no_account_of_airflows_rest_api_and_control_tasks_have() -> None:
    """Withdrawing a node leaves it no way in there, and no other node's password has to change."""
    stack = stack_with(NodeSettings(count=1, listen="192.0.2.9"))
    connection = "AIRFLOW_CONN_COLLECT_AIRFLOW"
    worker, joined = (
        workers.worker_environment(stack, "node-1"),
        JoinFile.parse(join.text(stack, "n2", None)).variables,
    )
    for variables in (worker, joined):
        assert connection not in variables
        text = "\n".join(variables.values())
        accounts = [
            name for name in stack.secrets if name.startswith("AIRFLOW_") and name.endswith("_PASSWORD")
        ]
        assert not [name for name in accounts if stack.secrets[name] in text]
    for variables in (workers.control_environment(stack), workers.local_environment(stack)):
        assert json.loads(variables[connection])["login"] == "collect_service"


def test_the_api_server_has_no_connection_to_give_away() -> None:
    stack = stack_with(NodeSettings(count=1))
    variables = programs(stack)["api-server"].variables(stack)
    for secret in ("POSTGRES_CONTROL_PASSWORD", "POSTGRES_COLLECT_PASSWORD", "RABBITMQ_CONTROL_PASSWORD"):
        values = {key for key, value in variables.items() if stack.secrets[secret] in value}
        assert values <= {"AIRFLOW__CELERY__BROKER_URL"}, values


def test_control_tasks_go_where_a_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_with(NodeSettings(count=1))
    queue = programs(stack)["scheduler"].variables(stack)["COLLECT_CONTROL_QUEUE"]
    assert queue in workers.control_command(stack)
    assert task_instance.CONTROL_POOL == "collect_control"


@pytest.mark.parametrize("nodes", [NodeSettings(), NodeSettings(count=2), NodeSettings(executor=LOCAL)])
def test_no_task_goes_to_a_queue_that_nobody_serves(nodes: NodeSettings) -> None:
    stack = stack_with(nodes)
    variables = programs(stack)["scheduler"].variables(stack)
    assert (variables["AIRFLOW__CORE__EXECUTOR"] == CELERY) is nodes.celery
    sent_to_nodes = Backends.from_environment(variables).node_queues
    assert sent_to_nodes is bool(nodes.count)
    served = {queue for pool in workers.local_pools() for queue in pool.queues.split(",")}
    if nodes.celery and not nodes.count:
        assert served == {"default", variables["COLLECT_CONTROL_QUEUE"]}


def test_a_frozen_or_full_pool_of_groups_leaves_control_tasks_their_own() -> None:
    control, groups = workers.local_pools()
    assert control.queues == workers.CONTROL_QUEUE
    assert workers.CONTROL_QUEUE not in groups.queues.split(",")
    assert groups.concurrency > workers.lane_slots(), (
        "a lane's slots are never fewer than the processes for them"
    )


def test_a_join_file_is_read_by_the_other_machine() -> None:
    stack = stack_with(NodeSettings(count=1, listen="192.0.2.9"))
    file = JoinFile.parse(join.text(stack, "n2", None))
    file.check_versions()
    hosts = [key for key, value in file.variables.items() if "127.0.0.1" in value]
    assert hosts == []
    assert "@192.0.2.9:" in file.variables["COLLECT_POSTGRES_DSN"]
    assert (
        "@198.51.100.4:"
        in JoinFile.parse(join.text(stack, "n2", "198.51.100.4")).variables["COLLECT_AMQP_URL"]
    )
    assert not [value for value in file.variables.values() if "/nowhere" in value]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [(NodeSettings(), "NODES=1 make up"), (NodeSettings(count=2), "listen on 127.0.0.1 only: LISTEN=")],
)
def test_a_join_file_of_a_stack_that_nobody_can_join(nodes: NodeSettings, told: str) -> None:
    with pytest.raises(StackError, match=told):
        join.text(stack_with(nodes), "n2", None)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 16383), max_size=5))
def test_a_subnet_collides_with_no_route(stack_number: int, taken: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        routes = [ipaddress.IPv4Network((int(network.SPACE.network_address) + n * 256, 24)) for n in taken]
        patch.setattr(Layout, "stack_id", property(lambda _: f"{stack_number:08x}"))
        patch.setattr(network, "_taken", lambda _: routes)
        layout = Layout(home=Path("/nowhere"))
        found = network.choose_subnet(layout, None)
        assert ipaddress.IPv4Network(found).subnet_of(network.SPACE)
        assert not any(ipaddress.IPv4Network(found).overlaps(route) for route in routes)
        assert network.choose_subnet(layout, found) == found
        assert len(network.link_of(layout, "node-32")) <= 15
        assert len(network.bridge_of(layout)) <= 15


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[Layout, NodeSettings]]:
    layout = Layout(home=tmp_path)
    nodes = NodeSettings(count=2, subnet=network.choose_subnet(layout, None))
    yield layout, nodes
    network.remove(layout)
    assert not list(network.NAMESPACES.glob(f"*{layout.stack_id}*"))
    assert not list(Path("/sys/class/net").glob(f"*{layout.stack_id}*"))


def ping(layout: Layout, nodes: NodeSettings, node_id: str, address: str) -> bool:
    """Whether a server on an address is reached from a node."""
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(({address!r}, {port}), timeout=1)"
        command = network.inside(layout, nodes, node_id, ["/usr/bin/python3", "-c", code])
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@as_root
def test_nodes_reach_the_bridge_and_nothing_of_this_machine_else(net: tuple[Layout, NodeSettings]) -> None:
    layout, nodes = net
    network.create(layout, nodes)
    network.create(layout, nodes)
    assert nodes.bridge is not None
    for node_id in nodes.ids:
        assert ping(layout, nodes, node_id, nodes.bridge)
        assert not ping(layout, nodes, node_id, "127.0.0.1")
    subprocess.run(["ip", "link", "set", network.link_of(layout, "node-1"), "down"], check=True)
    assert not ping(layout, nodes, "node-1", nodes.bridge)
    assert ping(layout, nodes, "node-2", nodes.bridge)


@as_root
def test_a_node_less_a_node_half_made_and_what_a_crash_left(net: tuple[Layout, NodeSettings]) -> None:
    layout, nodes = net
    network.create(layout, nodes)
    # As if making node 2 had been cut off before its wire joined the bridge.
    subprocess.run(["ip", "link", "set", network.link_of(layout, "node-2"), "nomaster"], check=True)
    network.create(layout, nodes)
    assert nodes.bridge is not None
    assert ping(layout, nodes, "node-2", nodes.bridge)
    network.create(layout, replace(nodes, count=1))
    assert [path.name for path in network.NAMESPACES.glob(f"*{layout.stack_id}*")] == [
        network.namespace_of(layout, "node-1")
    ]
    assert network.remove(layout) == 1
    assert network.remove(layout) == 0


@as_root
def test_what_is_mounted_for_a_node_is_taken_down(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "with a space")
    folder = layout.nodes / "node-1" / "tmp"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    assert os.path.ismount(folder)
    assert network.unmount_all(layout) == 1
    assert not os.path.ismount(folder)


def test_without_root_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "runs_as_root", lambda: False)
    with pytest.raises(network.NoNamespaces, match="only root can make network namespaces"):
        network.create(Layout(home=tmp_path), NodeSettings(count=1, subnet="10.64.7.0/24"))
