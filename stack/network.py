"""Network namespaces of worker hosts: one a node, joined by a bridge on whose address the services listen too.

Everything is named after the stack's id, so stacks do not meet, and what a crash left behind is found again.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from pathlib import Path

from stack.faults import StackError
from stack.layout import Layout, runs_as_root
from stack.node_settings import NodeSettings, number_of

# Shared address space: seldom used on machines; what collides with a route of this one is passed over.
SPACE = ipaddress.IPv4Network("10.64.0.0/10")
NAMESPACES = Path("/run/netns")
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class NoNamespaces(StackError):
    """This machine, or who runs this, cannot make network namespaces."""


def namespace_of(layout: Layout, node_id: str) -> str:
    """The name of a node's namespace."""
    return f"collect-{layout.stack_id}-{node_id}"


def link_of(layout: Layout, node_id: str) -> str:
    """This machine's end of the wire to a node; at most 15 letters, as the kernel demands."""
    return f"co{layout.stack_id}-{number_of(node_id)}"


def bridge_of(layout: Layout) -> str:
    """The bridge's name."""
    return f"co{layout.stack_id}-br"


def inside(layout: Layout, nodes: NodeSettings, node_id: str, command: list[str]) -> list[str]:
    """A command in a node's namespace, or as it is when nodes have none.

    `nsenter` becomes the command, and leaves mounts as they are: what is mounted for a node later is seen in it.
    """
    if nodes.subnet is None:
        return command
    nsenter = shutil.which("nsenter", path=SYSTEM_PATH) or "/usr/bin/nsenter"
    return [nsenter, f"--net={NAMESPACES / namespace_of(layout, node_id)}", "--", *command]


def choose_subnet(layout: Layout, before: str | None) -> str:
    """A /24 that no route of this machine overlaps: the one from before, else the first free from a derived start.

    Raises:
        NoNamespaces: None is free, or routes cannot be read.
    """
    taken = _taken(bridge_of(layout))
    candidates = 2 ** (24 - SPACE.prefixlen)
    start = int(layout.stack_id, 16) % candidates
    first = int(SPACE.network_address)
    for step in range(-1, candidates):
        if step < 0 and before is None:
            continue
        subnet = ipaddress.IPv4Network(
            before if step < 0 and before else (first + (start + step) % candidates * 256, 24)
        )
        if not any(subnet.overlaps(route) for route in taken):
            return str(subnet)
    raise NoNamespaces(f"no /24 of {SPACE} is free on this machine")


def _taken(own_bridge: str) -> list[ipaddress.IPv4Network]:
    """What this machine's routes lead to, but for its default and what is ours."""
    found = []
    for route in json.loads(_ip("-json", "-4", "route", "show", "table", "all") or "[]"):
        target = route.get("dst", "default")
        if target != "default" and route.get("dev") != own_bridge:
            found.append(ipaddress.IPv4Network(target, strict=False))
    return found


def create(layout: Layout, nodes: NodeSettings) -> None:
    """Make bridge, namespaces and wires, as far as they are not there, and remove those of nodes no longer wanted.

    Raises:
        NoNamespaces: The machine does not allow it; nothing is left behind.
    """
    if not runs_as_root():
        raise NoNamespaces("only root can make network namespaces")
    if shutil.which("ip", path=SYSTEM_PATH) is None:
        raise NoNamespaces("the command `ip` is not installed (Debian package iproute2)")
    if nodes.subnet is None or nodes.bridge is None:
        raise NoNamespaces("no subnet was chosen")
    wanted = {namespace_of(layout, node_id) for node_id in nodes.ids}
    _remove_namespaces(layout, keep=wanted)
    try:
        _create_bridge(bridge_of(layout), f"{nodes.bridge}/24")
        for node_id in nodes.ids:
            # Joining the bridge is the last step: without it, making the node was cut off.
            if not Path(f"/sys/class/net/{link_of(layout, node_id)}/master").exists():
                _remove_namespaces(layout, keep=wanted - {namespace_of(layout, node_id)})
                _create_node(layout, nodes, node_id)
    except NoNamespaces:
        remove(layout)
        raise


def _create_bridge(name: str, address: str) -> None:
    links = {
        link["ifname"] for link in json.loads(_ip("-json", "link", "show", "type", "bridge") or "[]") if link
    }
    if name not in links:
        _ip("link", "add", name, "type", "bridge")
    _ip("address", "replace", address, "dev", name)
    _ip("link", "set", name, "up")


def _create_node(layout: Layout, nodes: NodeSettings, node_id: str) -> None:
    namespace, link = namespace_of(layout, node_id), link_of(layout, node_id)
    _ip("netns", "add", namespace)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("-netns", namespace, "address", "add", f"{nodes.address(node_id)}/24", "dev", "eth0")
    _ip("-netns", namespace, "link", "set", "lo", "up")
    _ip("-netns", namespace, "link", "set", "eth0", "up")
    _ip("link", "set", link, "master", bridge_of(layout), "up")


def remove(layout: Layout) -> int:
    """Remove whatever of this stack's network is there; its processes must have ended. Repeatable.

    Returns:
        How many namespaces were removed.
    """
    removed = _remove_namespaces(layout, keep=set())
    if Path(f"/sys/class/net/{bridge_of(layout)}").exists():
        _ip("link", "delete", bridge_of(layout))
    return removed


def _remove_namespaces(layout: Layout, *, keep: set[str]) -> int:
    going = [name for name in _namespaces(layout) if name not in keep]
    for name in going:
        # The wire first: a process that is still in the namespace would keep both alive.
        link = link_of(layout, name.removeprefix(f"collect-{layout.stack_id}-"))
        if Path(f"/sys/class/net/{link}").exists():
            _ip("link", "delete", link)
        _ip("netns", "delete", name)
    return len(going)


def _namespaces(layout: Layout) -> list[str]:
    """This stack's, by name."""
    prefix = f"collect-{layout.stack_id}-node-"
    return sorted(path.name for path in NAMESPACES.glob(f"{prefix}*")) if NAMESPACES.is_dir() else []


def _ip(*arguments: str) -> str:
    done = _run(["ip", *arguments])
    if done.returncode != 0:
        raise NoNamespaces(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/env", *command], env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False
    )


def unmount_all(layout: Layout) -> int:
    """Take down what was mounted below the nodes' folders, the deepest first.

    Returns:
        How many.
    """
    root = str(layout.nodes) + "/"
    # Spaces and the like are written as \\040 in this file.
    points = [
        line.split()[1].encode().decode("unicode_escape")
        for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    mounted = sorted((point for point in points if point.startswith(root)), key=len, reverse=True)
    for point in mounted:
        _run(["umount", "--lazy", point])
    return len(mounted)
