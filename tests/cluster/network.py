"""The network of one instance: a namespace with one link to the machine and no way out."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import processes
from tests.cluster.commands import run, succeeds
from tests.cluster.settings import Instance


def create(instance: Instance) -> None:
    """Make the namespace and its link; the machine reaches node, pods and services, and they reach the machine.

    There is no default route: nothing in the cluster can leave the machine. Does nothing when it is all there.
    """
    if _complete(instance):
        return
    remove(instance)
    space, node = instance.namespace, instance.node_address
    run("ip", "netns", "add", space)
    run("ip", "link", "add", instance.host_link, "type", "veth", "peer", "name", instance.node_link, "netns", space)
    run("ip", "addr", "add", f"{instance.host_address}/30", "dev", instance.host_link)
    run("ip", "link", "set", instance.host_link, "up")
    run("ip", "-n", space, "addr", "add", f"{node}/30", "dev", instance.node_link)
    run("ip", "-n", space, "link", "set", instance.node_link, "up")
    run("ip", "-n", space, "link", "set", "lo", "up")
    for setting in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        # Both belong to the namespace and go with it; the second is there only when the bridge filter is loaded.
        if (Path("/proc/sys") / setting).exists():
            key = setting.replace("/", ".")
            succeeds("nsenter", f"--net={instance.namespace_file}", "sysctl", "-qw", f"{key}=1")
    # The node's own packets to services need a route before kube-proxy's rules can rewrite them on output.
    run("ip", "-n", space, "route", "add", instance.service_range, "dev", instance.node_link, "src", node)
    run("ip", "route", "replace", instance.pod_range, "via", node)
    run("ip", "route", "replace", instance.service_range, "via", node)


def remove(instance: Instance) -> None:
    """Kill what is left in the namespace and remove it with its link; the routes go with the link."""
    processes.kill_and_wait(inhabitants(instance))
    succeeds("ip", "link", "del", instance.host_link)
    succeeds("ip", "netns", "del", instance.namespace)


def inhabitants(instance: Instance) -> list[int]:
    """Return the processes in the node's network namespace (not those of pods, which have their own)."""
    if not instance.namespace_file.exists():
        return []
    return [int(pid) for pid in run("ip", "netns", "pids", instance.namespace).split()]


def _complete(instance: Instance) -> bool:
    if not instance.namespace_file.exists():
        return False
    routes = run("ip", "-4", "route", "show", "dev", instance.host_link) if _link_exists(instance) else ""
    # The last thing that create() does, so all before it was done.
    return instance.service_range in routes


def _link_exists(instance: Instance) -> bool:
    return (Path("/sys/class/net") / instance.host_link).exists()
