"""The chart renders what it promises, refuses what it does not know, and asks for little."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.api.manifest_cases import base
from tests.cluster import Cluster, Mode, tool

from plimsoll_operator.settings import Settings, parse_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "plimsoll"
Object = dict[str, Any]

pytestmark = pytest.mark.apiserver  # helm, too, is built by tests.cluster

#: Every optional part on, so that one rendering shows all templates.
EVERYTHING = {
    "networkPolicy.enabled": "true",
    "podDisruptionBudget.enabled": "true",
    "metrics.serviceMonitor.enabled": "true",
    "metrics.podMonitor.enabled": "true",
    "security.forbidCodeExecution": "true",
    "commonLabels.team": "vision",
    "commonAnnotations.contact": "vision",
}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False)


def sets(values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def render(values: dict[str, str] | None = None, *more: str) -> list[Object]:
    done = helm("template", "demo", str(CHART), "--namespace", "plimsoll-system", *sets(values or {}), *more)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    found = [o for o in objects if o["kind"] == kind and (not name or o["metadata"]["name"] == name)]
    assert len(found) == 1, [o["metadata"]["name"] for o in found]
    return found[0]


def rules(objects: list[Object]) -> list[dict[str, list[str]]]:
    """Return the rules of the roles that are bound to the operator's account."""
    bound = {(b["roleRef"]["kind"], b["roleRef"]["name"]) for b in objects if b["kind"].endswith("RoleBinding")}
    return [rule for o in objects if (o["kind"], o["metadata"]["name"]) in bound for rule in o["rules"]]


def test_lint_is_clean() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_crds_are_the_generated_ones_and_stay_on_uninstall() -> None:
    rendered = {o["metadata"]["name"]: o for o in render() if o["kind"] == "CustomResourceDefinition"}
    generated = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert sorted(rendered) == sorted(crd["metadata"]["name"] for crd in generated)
    assert len(rendered) == 3
    for crd in generated:
        shown = rendered[crd["metadata"]["name"]]
        assert shown["spec"] == crd["spec"]
        assert shown["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(("values", "kept"), [({"crds.keep": "false"}, [None] * 3), ({"crds.install": "false"}, [])])
def test_crds_may_go_or_be_left_out(values: dict[str, str], kept: list[None]) -> None:
    crds = [o for o in render(values) if o["kind"] == "CustomResourceDefinition"]
    policy = [(c["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") for c in crds]
    assert policy == kept


def test_optional_parts_are_off_by_default() -> None:
    kinds = {o["kind"] for o in render()}
    assert kinds.isdisjoint({"NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PodMonitor"})
    assert kinds.isdisjoint({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})


def test_everything_on_renders_with_common_labels() -> None:
    objects = render(EVERYTHING)
    assert {"NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PodMonitor"} <= {o["kind"] for o in objects}
    for o in objects:
        if o["metadata"].get("annotations", {}).get("helm.sh/hook"):
            continue
        assert o["metadata"]["labels"]["team"] == "vision", o["metadata"]["name"]
        assert o["metadata"]["annotations"]["contact"] == "vision", o["metadata"]["name"]


def test_every_pod_is_restricted_with_a_read_only_root() -> None:
    objects = render(EVERYTHING)
    pods = [one(objects, "Deployment")["spec"]["template"]["spec"], one(objects, "Pod")["spec"]]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_operator_asks_for_no_wildcard_secret_or_exec() -> None:
    asked = rules(render())
    assert asked
    for rule in asked:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "*" not in words
        assert words.isdisjoint({"secrets", "pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token"})
        assert words.isdisjoint({"impersonate", "escalate", "bind"})


def test_the_operator_is_granted_what_its_readme_says_and_nothing_else() -> None:
    stated = set()
    for line in (ROOT / "operator" / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] != "group" and not cells[0].startswith("-"):
            group = "" if cells[0] == "(core)" else cells[0]
            stated |= {(group, cells[1], verb.strip()) for verb in cells[2].split(",")}
    granted = {
        (group, resource, verb)
        for rule in rules(render())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == stated


def test_named_namespaces_get_roles_of_their_own_and_no_cluster_role() -> None:
    objects = render({"namespaces[0]": "vision", "namespaces[1]": "speech", "rbac.aggregate": "false"})
    assert not [o for o in objects if o["kind"].startswith("ClusterRole")]
    homes = [o["metadata"]["namespace"] for o in objects if o["kind"] == "RoleBinding"]
    assert sorted(homes) == ["plimsoll-system", "speech", "vision"]
    env = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "PLIMSOLL_NAMESPACES", "value": "vision,speech"} in env


def test_the_operator_knows_every_variable_that_the_chart_sets() -> None:
    env = one(render({"namespaces[0]": "vision"}), "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {variable["name"]: variable.get("value", "x") for variable in env}
    settings = parse_settings([], given)
    known = Path(str(sys.modules[Settings.__module__].__file__)).read_text()
    assert not [name for name in given if f'"{name}"' not in known]
    assert settings.namespaces == ("vision",)
    assert settings.job_image == "docker.io/plimsoll/job:dev"
    assert settings.lease_name == "demo-plimsoll"
    usual = Settings()
    assert (settings.workers, settings.log_format, settings.log_level) == (
        usual.workers,
        usual.log_format,
        usual.log_level,
    )


def test_revisions_are_not_for_people_to_write() -> None:
    edit = one(render(), "ClusterRole", "demo-plimsoll-edit")
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    verbs = {verb for rule in edit["rules"] if "modelrevisions" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"delete"}


def test_without_roles_nothing_is_granted() -> None:
    kinds = {o["kind"] for o in render({"rbac.create": "false", "rbac.aggregate": "false"})}
    assert kinds.isdisjoint({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})


def test_images_by_tag_and_by_digest() -> None:
    digest = "sha256:" + "a" * 64
    objects = render({"image.tag": "dev", "jobImage.repository": "example.org:5000/job", "jobImage.digest": digest})
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "docker.io/plimsoll/operator:dev"
    assert f"example.org:5000/job@{digest}" in json.dumps(container)


def test_names_follow_the_release_and_the_overrides() -> None:
    assert one(render(), "Deployment")["metadata"]["name"] == "demo-plimsoll"
    assert one(render({"fullnameOverride": "load-line"}), "Deployment")["metadata"]["name"] == "load-line"


def test_an_existing_service_account_must_be_named() -> None:
    done = helm("template", "demo", str(CHART), "--set", "serviceAccount.create=false")
    assert done.returncode != 0
    assert "serviceAccount.name must be set" in done.stderr
    objects = render({"serviceAccount.create": "false", "serviceAccount.name": "mine"})
    assert not [o for o in objects if o["kind"] == "ServiceAccount"]
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("replica=2", "replica"),
        ("replicas=two", "replicas"),
        ("log.level=LOUD", "level"),
        ("security.forbidCodeExecution=perhaps", "forbidCodeExecution"),
        ("namespaces[0]=Not_One", "namespaces"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=abc", "digest"),
        ("image.repository=plimsoll/operator:dev", "repository"),
        ("jobImage.pullpolicy=Always", "pullpolicy"),
        ("crds.enabled=true", "enabled"),
        ("metrics.service.port=0", "port"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("tolerations[0].efect=NoSchedule", "efect"),
        ("nodeSelector.gpu=1", "gpu"),
        ("serviceAccount.name=Not_A_Name", "name"),
        ("terminationGracePeriodSeconds=0", "terminationGracePeriodSeconds"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, field: str) -> None:
    done = helm("template", "demo", str(CHART), "--set", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_every_value_has_a_place_in_the_schema_and_the_reverse() -> None:
    def keys(node: Any, at: str = "") -> set[str]:
        if not isinstance(node, dict) or not node:
            return {at}
        return {key for name, child in node.items() for key in keys(child, f"{at}.{name}")}

    def listed(node: Object, at: str = "") -> set[str]:
        if node.get("additionalProperties") is not False:
            return {at}
        return {key for name, child in node["properties"].items() for key in listed(child, f"{at}.{name}")}

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {k for k in keys(values) if not k.startswith(".resources")} == {
        k for k in listed(schema) if not k.startswith((".resources", ".affinity", ".global"))
    } | {".affinity"}


def test_code_is_forbidden_in_the_operators_namespaces() -> None:
    forbid = {"security.forbidCodeExecution": "true"}
    policy = one(render(forbid), "ValidatingAdmissionPolicy")
    binding = one(render(forbid), "ValidatingAdmissionPolicyBinding")
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    some = one(render({**forbid, "namespaces[0]": "vision"}), "ValidatingAdmissionPolicyBinding")
    (selected,) = some["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert selected == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["vision"]}


def test_notes_say_what_to_do_next() -> None:
    done = helm("install", "demo", str(CHART), "--dry-run=client", "--namespace", "plimsoll-system")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "examples/digits/job.yaml" in notes
    for word in notes.split():
        if word.startswith("examples/"):
            assert list(ROOT.glob(word)), word


@pytest.fixture(scope="module")
def api() -> Iterator[Cluster]:
    with Cluster.up("chart", mode=Mode.API_ONLY) as cluster:
        if "plimsoll-system" not in cluster.kubectl("get", "namespaces", "-o", "name"):
            cluster.kubectl("create", "namespace", "plimsoll-system")
            # No controller makes it here, and a pod is refused without it.
            cluster.kubectl("-n", "plimsoll-system", "create", "serviceaccount", "default")
        enforce = "pod-security.kubernetes.io/enforce=restricted"
        cluster.kubectl("label", "--overwrite", "namespace", "plimsoll-system", enforce)
        yield cluster


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_a_real_api_server_takes_every_object_without_a_warning(api: Cluster, values: dict[str, str]) -> None:
    theirs = {"ServiceMonitor", "PodMonitor"}  # their definitions are the Prometheus operator's
    objects = [o for o in render(values) if o["kind"] not in theirs]
    done = subprocess.run(
        [tool("kubectl"), "--kubeconfig", api.kubeconfig, "apply", "--server-side", "--dry-run=server", "-f", "-"],
        input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


def job(*, allows: bool, suspend: bool = False) -> Object:
    """Return a job of a model that may bring code."""
    made = base("job")
    made["metadata"] = {"name": "brings-code", "namespace": "plimsoll-system"}
    made["spec"]["model"]["architecture"] = {"huggingface": {}}
    made["spec"] |= {"task": "TextClassification", "allowCodeExecution": allows, "suspend": suspend}
    return made


def test_a_real_api_server_refuses_code_where_it_is_forbidden(api: Cluster) -> None:
    def given(verb: str, *objects: Object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool("kubectl"), "--kubeconfig", api.kubeconfig, verb, "-f", "-"],
            input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def refused(done: subprocess.CompletedProcess[str]) -> bool:
        if done.returncode == 0:
            return False
        assert "spec.allowCodeExecution: the administrators of this cluster forbid code" in done.stderr
        return True

    crds = str(ROOT / "crds")
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", crds)
    api.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", crds)
    policy = [o for o in render({"security.forbidCodeExecution": "true"}) if o["kind"].startswith("ValidatingAdm")]
    try:
        assert given("create", job(allows=True)).returncode == 0
        assert given("create", *policy).returncode == 0
        # It holds once the API server has read it, some seconds later.
        probe = job(allows=True) | {"metadata": {"generateName": "probe-", "namespace": "plimsoll-system"}}
        deadline = time.monotonic() + 60
        while not refused(given("create", probe)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        # What was there before may be labelled, suspended and collected, but not started again.
        labelled = job(allows=True)
        labelled["metadata"]["labels"] = {"team": "vision"}
        assert given("apply", labelled).returncode == 0
        assert given("apply", job(allows=True, suspend=True)).returncode == 0
        assert refused(given("apply", job(allows=True)))
        assert given("delete", job(allows=True)).returncode == 0
        assert refused(given("create", job(allows=True, suspend=True)))
        assert given("create", job(allows=False, suspend=True)).returncode == 0
        assert refused(given("apply", job(allows=True, suspend=True)))
    finally:
        given("delete", *policy)
        api.kubectl("-n", "plimsoll-system", "delete", "compressionjobs", "--all")
