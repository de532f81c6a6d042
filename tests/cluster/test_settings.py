"""Instances keep apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster import ClusterError
from tests.cluster.settings import SLOTS, Instance, check_name


def test_two_instances_share_no_address_and_no_path() -> None:
    instances = [Instance(f"name-{slot}", slot, Path("/cache")) for slot in range(SLOTS)]
    for value in (
        "host_address", "node_address", "pod_range", "service_range", "api_service_address", "dns_address",
        "host_link", "node_link", "namespace", "cgroup", "runtime", "storage", "etcd_data",
    ):  # fmt: skip
        assert len({getattr(instance, value) for instance in instances}) == SLOTS, value


def test_names_of_links_and_sockets_fit_what_linux_allows() -> None:
    longest = Instance("x" * 20, SLOTS - 1, Path("/cache"))
    assert len(longest.host_link) <= 15
    assert len(str(longest.containerd_socket)) <= 107


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-a", "a-", "x" * 21])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot name a cluster"):
        check_name(name)
