"""What the charts become: goldens, the API server's own schemas, restricted Pod Security, and that every value does something."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from perfpolicy import __version__, yaml_text
from perfpolicy.api.performance_class import parse_class
from perfpolicy.policy import pod_security
from perfpolicy.policy.builtin import builtin_classes
from tests.charts import helm
from tests.charts.helm import EVERYTHING, MAIN, NAMESPACED, VARIANTS, Manifest, one
from tests.conftest import Golden
from tests.reachability import Cluster as Reachability
from tests.reachability import Host, Pod, selects
from tools import chart

KUBERNETES = ("1.30", "1.33", "1.36")
"""The oldest supported version, one in between, and the lab's."""
ELSEWHERE = {
    "PerformanceClass": "parsed below with the operator's own model",
    "PrometheusRule": "its rules are tested in test_alerts.py",
    "ServiceMonitor": "no offline schema: judged by the API server in e2e only",
}
CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "PerformanceClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
VALUES = chart.read((MAIN / "values.yaml").read_text())


@pytest.mark.parametrize("name", ["perfpolicy", "perfpolicy-crds"])
def test_helm_lint_finds_nothing(name: str) -> None:
    helm.helm("lint", "--strict", str(helm.ROOT / "charts" / name))


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden(variant: str, golden: Golden) -> None:
    manifests = copy.deepcopy(helm.template(VARIANTS[variant]))
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            data = manifest["data"].items()
            manifest["data"] = {name: yaml_text.load_all(text) if name.endswith(".yaml") else "a file" for name, text in data}
    ordered = sorted(manifests, key=lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]))
    golden(Path(__file__).parent / "golden" / f"{variant}.yaml", yaml_text.dump_all(ordered))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_has_the_form_the_api_server_wants(variant: str, version: str) -> None:
    manifests = helm.template(VARIANTS[variant])
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in ELSEWHERE:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_crds_have_the_form_the_api_server_wants(version: str) -> None:
    manifests = helm.template({}, chart=helm.CRDS)
    assert len(manifests) == 2
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_offline_schemas_refuse_what_the_api_server_would() -> None:
    deployment = copy.deepcopy(one(helm.template({}), "Deployment", "perfpolicy"))
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolicies"):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


def test_the_crds_are_the_projects_own_and_stay_when_the_release_goes() -> None:
    for manifest in helm.template({}, chart=helm.CRDS):
        annotations = manifest["metadata"].pop("annotations")
        assert annotations == {"helm.sh/resource-policy": "keep"}
        assert manifest == yaml_text.load((helm.ROOT / "crds" / f"{manifest['spec']['names']['plural']}.yaml").read_text())
        manifest["metadata"]["annotations"] = annotations


@pytest.mark.parametrize("path", [helm.MAIN, helm.CRDS])
def test_the_charts_have_the_packages_version(path: Path) -> None:
    about = yaml_text.load((path / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_are_unique_and_every_object_says_where_it_lives(variant: str) -> None:
    seen = set()
    for manifest in helm.template(VARIANTS[variant]):
        metadata = manifest["metadata"]
        assert (manifest["kind"] in CLUSTER_SCOPED) == ("namespace" not in metadata), f"{manifest['kind']} {metadata['name']}"
        key = (manifest["kind"], metadata.get("namespace"), metadata["name"])
        assert key not in seen
        seen.add(key)


@pytest.mark.parametrize("name", ["123", "1e3", "true", "null"])
def test_names_that_look_like_something_else_stay_texts(name: str) -> None:
    values = {
        "fullnameOverride": name,
        "scope": {"namespaces": [name]},
        "serviceAccount": {"name": name},
        "prometheus": {"namespace": name, "auth": {"secretName": name}},
        "priorityClassName": name,
        "classes": {name: {"default": True, "spec": {}}, "production": {"default": False}},
    }
    for tree in (values, {**values, "scope": {}}):
        manifests = helm.template(tree)
        for manifest in manifests:
            if manifest["kind"] not in ELSEWHERE:
                kubernetes_validate.validate(manifest, KUBERNETES[0], strict=True)
            assert all(isinstance(text, str) for text in _names(manifest)), manifest
        assert name in {each["metadata"]["name"] for each in _classes(tree)}


def _names(tree: Any) -> Iterator[Any]:
    """Whatever stands where a name does, and every label."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key.endswith(("name", "Name", "namespace")) and not isinstance(value, dict | list):
                yield value
            elif key == "resourceNames":
                yield from value
            elif key in ("labels", "matchLabels", "annotations"):
                yield from value.values()
            yield from _names(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _names(value)


# Pod Security


def _pods(manifests: list[Manifest]) -> Iterator[Mapping[str, Any]]:
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["spec"]
        elif manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]


def _restricted(pod: Mapping[str, Any]) -> list[str]:
    """What the Pod Security Standard `restricted` asks for beyond what nobody may have, plus a root file system that cannot be written."""
    wrong = [] if pod["securityContext"]["runAsNonRoot"] is True else ["runAsNonRoot"]
    wrong += [] if pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault" else ["seccompProfile"]
    for container in pod["containers"]:
        context = container["securityContext"]
        wrong += [] if context["allowPrivilegeEscalation"] is False else ["allowPrivilegeEscalation"]
        wrong += [] if context["capabilities"] == {"drop": ["ALL"]} else ["capabilities"]
        wrong += [] if context["readOnlyRootFilesystem"] is True else ["readOnlyRootFilesystem"]
    return wrong


NOT_OF_A_POLICY = {"serviceAccountName", "priorityClassName"}
"""What the operator's own pods may have and a pod that a policy creates may not."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted(variant: str) -> None:
    pods = list(_pods(helm.template(VARIANTS[variant])))
    assert len(pods) == 3
    problems: list[str] = []

    def report(path: str, message: str) -> None:
        problems.append(f"{path}: {message}")

    for pod in pods:
        pod_security.check_pod(report, {key: value for key, value in pod.items() if key not in NOT_OF_A_POLICY}, frozenset())
        problems.extend(_restricted(pod))
    assert problems == []


def test_no_pod_gets_a_sidecar_unless_told() -> None:
    manifests = helm.template({})
    pods = [each if each["kind"] == "Pod" else each["spec"]["template"] for each in manifests if each["kind"] in ("Pod", "Deployment")]
    assert [pod["metadata"]["labels"]["sidecar.istio.io/inject"] for pod in pods] == ["false"] * 3
    told = one(helm.template({"podLabels": {"sidecar.istio.io/inject": "true"}}), "Deployment", "perfpolicy")
    assert told["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"


def test_only_the_pods_that_ask_the_api_server_get_a_token() -> None:
    manifests = helm.template({})
    assert one(manifests, "Deployment", "perfpolicy")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert one(manifests, "Deployment", "perfpolicy-test")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert one(manifests, "Pod")["spec"]["automountServiceAccountToken"] is True
    accounts = [each for each in manifests if each["kind"] == "ServiceAccount"]
    assert [each["automountServiceAccountToken"] for each in accounts] == [False, False]


# Classes


def _classes(values: Mapping[str, Any]) -> list[Manifest]:
    """The classes of a release, whether objects or a mounted file."""
    manifests = helm.template(values)
    files = [each["data"]["classes.yaml"] for each in manifests if each["kind"] == "ConfigMap" and "classes.yaml" in each["data"]]
    mounted = [cls for text in files for cls in yaml_text.load_all(text)]
    return mounted + [each for each in manifests if each["kind"] == "PerformanceClass"]


@pytest.mark.parametrize("values", [{}, {"scope": {"namespaces": ["ce-hub"]}}], ids=["objects", "file"])
def test_the_built_in_classes_are_installed(values: Mapping[str, Any]) -> None:
    installed = {each["metadata"]["name"]: parse_class(each) for each in _classes(values)}
    assert installed.keys() == {cls.metadata.name for cls in builtin_classes()}
    for built_in in builtin_classes():
        cls = installed[built_in.metadata.name]
        assert cls.is_default == built_in.is_default
        assert cls.spec.metrics is not None
        assert cls.spec.metrics.address == "http://prometheus.monitoring.svc:9090"
        assert cls.spec.model_copy(update={"metrics": None}) == built_in.spec


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_class_is_one_the_operator_takes(variant: str) -> None:
    assert all(parse_class(each) for each in _classes(VARIANTS[variant]))


def test_what_a_class_says_of_prometheus_wins_and_the_rest_is_filled() -> None:
    classes = {each["metadata"]["name"]: each["spec"] for each in _classes(EVERYTHING)}
    assert classes.keys() == {"testing", "staging", "production", "gold"}
    told = EVERYTHING["prometheus"]
    everywhere = {"address": told["address"], "namespace": "mimir", "timeout": "5s", "authFile": "/etc/perfpolicy/prometheus/bearer"}
    assert classes["gold"]["metrics"] == {**everywhere, "tenant": "team-a"}
    assert classes["staging"]["metrics"] == {**everywhere, "tenant": "team-b"}
    assert classes["gold"]["labels"] == {"rules": {"release": "monitoring"}}
    assert classes["staging"]["labels"] == {"rules": {"release": "monitoring", "prometheus": "staging"}}


def test_without_workload_creation_no_class_grants_it() -> None:
    grants = [grant for each in _classes(NAMESPACED) for grant in each["spec"]["grants"]]
    assert {grant["workloadCreation"] for grant in grants} == {"Denied"}


def test_the_namespaced_mode_needs_nothing_cluster_scoped() -> None:
    manifests = helm.template(NAMESPACED)
    assert [each["kind"] for each in manifests if "namespace" not in each["metadata"]] == []
    container = one(manifests, "Deployment", "perfpolicy")["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["PERFPOLICY_NAMESPACES"] == "ce-hub,runeframe"
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "classes")
    assert env["PERFPOLICY_CLASS_FILE"] == f"{folder}/classes.yaml"


def test_without_classes_the_operator_is_not_let_out_anywhere_else() -> None:
    none = dict.fromkeys(cls.metadata.name for cls in builtin_classes())
    for values in ({"classes": none}, {"classes": none, "scope": {"namespaces": ["ce-hub"]}}):
        assert _classes(values) == []
        assert all(rule.get("to") or rule["ports"] for rule in one(helm.template(values), "NetworkPolicy")["spec"]["egress"])


# Who reaches whom


def test_the_operator_reaches_what_it_needs_and_nothing_else() -> None:
    values = {"classes": {"gold": {"spec": {"metrics": {"namespace": "mimir"}}}}}
    manifests = helm.template(values)
    operator = _operator(manifests)
    prometheus, mimir, stranger = (
        Pod(name, name, {"app": name}, f"10.0.1.{index}") for index, name in enumerate(("monitoring", "mimir", "other"))
    )
    dns, api, internet = Pod("dns", "kube-system", {}, "10.0.2.1"), Host("api", "192.168.0.10"), Host("internet", "203.0.113.9")
    names = (helm.NAMESPACE, "monitoring", "mimir", "other", "kube-system")
    cluster = Reachability({name: {"kubernetes.io/metadata.name": name} for name in names}, (one(manifests, "NetworkPolicy"),))
    reached: list[tuple[Pod | Host, int, str]] = [
        (dns, 53, "UDP"),
        (dns, 53, "TCP"),
        (api, 443, "TCP"),
        (api, 6443, "TCP"),
        (prometheus, 9090, "TCP"),
        (mimir, 8080, "TCP"),
    ]
    assert {cls["spec"]["metrics"]["namespace"] for cls in _classes(values)} == {"monitoring", "mimir"}
    for target, port, protocol in reached:
        assert cluster.reaches(operator, target, port, protocol), (target.name, port, protocol)
    closed: list[tuple[Pod | Host, int, str]] = [(stranger, 9090, "TCP"), (dns, 9090, "TCP"), (api, 10250, "TCP"), (internet, 80, "TCP")]
    for target, port, protocol in closed:
        assert not cluster.reaches(operator, target, port, protocol), (target.name, port, protocol)
    assert cluster.reaches(stranger, operator, 8080)
    assert not cluster.reaches(stranger, operator, 9090)
    # The test's own pods are not the operator's, and not isolated.
    assert not selects(one(manifests, "NetworkPolicy")["spec"]["podSelector"], one(manifests, "Pod")["metadata"]["labels"])


def test_the_service_monitor_finds_the_operators_metrics_under_the_job_the_alerts_read() -> None:
    manifests = helm.template(EVERYTHING)
    monitor, service, deployment = (one(manifests, kind, "perfpolicy-main") for kind in ("ServiceMonitor", "Service", "Deployment"))
    pod = deployment["spec"]["template"]
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    assert port["targetPort"] in {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
    # Prometheus' job is the Service's name, unless a jobLabel says otherwise; the test's own Service is not scraped.
    assert "jobLabel" not in monitor["spec"]
    expressions = [rule["expr"] for group in one(manifests, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert all(f'job="{service["metadata"]["name"]}"' in expression for expression in expressions)
    assert not selects(monitor["spec"]["selector"], one(manifests, "Service", "perfpolicy-main-test")["metadata"]["labels"])


def test_who_may_scrape_can_be_limited() -> None:
    manifests = helm.template(EVERYTHING)
    operator = _operator(manifests)
    names = (helm.NAMESPACE, "mimir", "other")
    cluster = Reachability({name: {"kubernetes.io/metadata.name": name} for name in names}, (one(manifests, "NetworkPolicy"),))
    assert cluster.reaches(Pod("mimir", "mimir", {}, "10.0.1.1"), operator, 8080)
    assert not cluster.reaches(Pod("other", "other", {}, "10.0.1.2"), operator, 8080)
    assert cluster.reaches(operator, Host("far", "192.0.2.7"), 9090)
    assert not cluster.reaches(operator, Host("api", "192.168.0.10"), 443)


def _operator(manifests: list[Manifest]) -> Pod:
    """One of the pods of the operator's Deployment."""
    name = next(each["metadata"]["name"] for each in manifests if each["kind"] == "NetworkPolicy")
    template = one(manifests, "Deployment", name)["spec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    return Pod(name, helm.NAMESPACE, template["metadata"]["labels"], "10.0.0.1", ports)


# helm test


@pytest.mark.parametrize(
    ("values", "namespace"),
    [({}, helm.NAMESPACE), (NAMESPACED, "ce-hub"), ({"scope": {"namespaces": ["ce-hub", helm.NAMESPACE]}}, helm.NAMESPACE)],
    ids=["all", "elsewhere", "own"],
)
def test_the_test_runs_where_the_operator_looks(values: Mapping[str, Any], namespace: str) -> None:
    tests = [each for each in helm.template(values) if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    # `helm test --logs` looks for the pod in the release's own namespace only.
    here, there = ({each["kind"] for each in tests if each["metadata"]["namespace"] == place} for place in (helm.NAMESPACE, namespace))
    assert {"Pod", "ServiceAccount", "ConfigMap"} <= here
    assert {"Deployment", "Service", "Role", "RoleBinding"} <= there
    assert one(tests, "RoleBinding")["subjects"] == [{"kind": "ServiceAccount", "name": "perfpolicy-test", "namespace": helm.NAMESPACE}]
    policy = yaml_text.load(one(tests, "ConfigMap")["data"]["policy.json"])
    default = next(cls.metadata.name for cls in builtin_classes() if cls.is_default)
    assert (policy["metadata"]["namespace"], policy["spec"]["className"]) == (namespace, default)


@pytest.mark.parametrize(
    ("values", "name", "needs"),
    [
        ({}, "production", False),
        ({"rbac": {"create": False}}, "production", True),
        ({"rbac": {"create": False}, "admissionPolicy": {"enabled": False}}, "production", False),
        ({"classes": {"production": {"default": False}}}, "production", True),
        ({"classes": {"production": {"default": False}, "gold": {"spec": {}}}}, "gold", True),
        ({"classes": {"production": None, "gold": {"default": True, "spec": {}}, "bronze": {"spec": {}}}}, "gold", False),
        ({"classes": {"production": {"default": False}}, **NAMESPACED}, "production", False),
    ],
)
def test_the_test_uses_a_class_it_may(values: Mapping[str, Any], name: str, needs: bool) -> None:
    manifests = helm.template(values)
    policy = yaml_text.load(one(manifests, "ConfigMap", "perfpolicy-test")["data"]["policy.json"])
    assert policy["spec"]["className"] == name
    used = [rule for rule in one(manifests, "Role", "perfpolicy-test")["rules"] if "use" in rule["verbs"]]
    plurals = ["performanceclasses", "performanceclasses/prometheusrules", "performanceclasses/configmaps"]
    wanted = {"apiGroups": ["perfpolicy.io"], "resources": plurals, "resourceNames": [name], "verbs": ["use"]}
    assert used == ([wanted] if needs else [])


# Every value does something

OTHER: dict[str, Any] = {
    "image.digest": f"sha256:{'f' * 64}",
    "imagePullSecrets": [{"name": "other"}],
    "scope.namespaces": ["elsewhere"],
    "serviceAccount.annotations": {"example.com/other": "x"},
    "prometheus.address": "http://elsewhere.example.com",
    "prometheus.timeout": "7s",
    "prometheus.ruleLabels": {"other": "x"},
    "classes": {"other": {"spec": {}}},
    "settings": {"workers": 7},
    "extraEnv": [{"name": "OTHER", "value": "x"}],
    "extraVolumes": [{"name": "other", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "resources": {"limits": {"cpu": "7"}},
    "nodeSelector": {"other": "x"},
    "affinity": {"podAntiAffinity": {}},
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 7, "topologyKey": "other", "whenUnsatisfiable": "DoNotSchedule"}],
    "podAnnotations": {"other": "x"},
    "podLabels": {"other": "x"},
    "networkPolicy.ingressFrom": [{"podSelector": {"matchLabels": {"other": "x"}}}],
    "networkPolicy.apiServerPorts": [7443],
    "networkPolicy.extraEgress": [{"to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}]}],
    "serviceMonitor.interval": "7s",
    "serviceMonitor.metricRelabelings": [{"regex": "other", "action": "labeldrop"}],
    "serviceMonitor.labels": {"other": "x"},
    "alerts.labels": {"other": "x"},
    "dashboard.labels": {"other": "x"},
}
"""Values that are not made by turning, adding to or prolonging the default."""


def _leaves(values: tuple[chart.Value, ...]) -> Iterator[chart.Value]:
    for value in values:
        yield from _leaves(value.inner) if value.inner else (value,)


def _other(value: chart.Value) -> Any:
    name = ".".join(value.path)
    if name in OTHER:
        return OTHER[name]
    if "enum" in value.schema:
        return next(option for option in value.schema["enum"] if option != _at(EVERYTHING, value.path, value.default))
    if isinstance(value.default, bool):
        return not _at(EVERYTHING, value.path, value.default)
    return value.default + 7 if isinstance(value.default, int) else "other"


def _at(tree: Mapping[str, Any], path: tuple[str, ...], default: Any) -> Any:
    found: Any = tree
    for step in path:
        if step not in found:
            return default
        found = found[step]
    return found


def _with(tree: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of `tree` with `value` at `path`."""
    head, rest = path[0], path[1:]
    return {**tree, head: _with(tree.get(head, {}), rest, value) if rest else value}


@pytest.mark.parametrize("value", [pytest.param(leaf, id=".".join(leaf.path)) for leaf in _leaves(VALUES)])
def test_every_value_changes_something(value: chart.Value) -> None:
    name = ".".join(value.path)
    changed = helm.template(_with(_base(name), value.path, _other(value))) != helm.template(_base(name))
    assert changed, f"{name} has no effect"


def _base(name: str) -> Mapping[str, Any]:
    """Everything switched on; a few values are seen only while another one is not set."""
    return {} if name == "serviceAccount.create" else EVERYTHING


def _sentinels(tree: Any, path: str = "") -> Any:
    """The same tree with a text of its own for every leaf."""
    if isinstance(tree, dict):
        return {key: _sentinels(value, f"{path}.{key}") for key, value in tree.items()}
    if isinstance(tree, list):
        return [_sentinels(value, f"{path}.{index}") for index, value in enumerate(tree)]
    return f"at {path}"


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
    else:
        yield tree


def test_every_leaf_of_a_class_arrives() -> None:
    classes = next(value.default for value in VALUES if value.path == ("classes",))
    specs = {name: {"spec": _sentinels(body["spec"], name)} for name, body in classes.items()}
    manifests = helm.template({"classes": specs}, "--skip-schema-validation")
    arrived = set(_texts([each["spec"] for each in manifests if each["kind"] == "PerformanceClass"]))
    assert set(_texts(specs)) <= arrived


# Rights: the rules themselves are tests/test_access.py's, that they fit the calls e2e/test_access.py's


def test_the_namespaced_mode_has_one_role_in_each_namespace_and_nothing_elsewhere_but_the_lease() -> None:
    roles = [each for each in helm.template(NAMESPACED) if each["kind"] == "Role" and not each["metadata"]["name"].endswith("-test")]
    assert {each["metadata"]["namespace"] for each in roles} == {"ce-hub", "runeframe", helm.NAMESPACE}
    (lease,) = (each for each in roles if each["metadata"]["namespace"] == helm.NAMESPACE)
    assert {resource for rule in lease["rules"] for resource in rule["resources"]} == {"leases"}
    named = [rule for rule in lease["rules"] if rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in named] == [["perfpolicy"]]


@pytest.mark.parametrize("create", [True, False])
def test_writing_deployments_is_a_switch_of_its_own(create: bool) -> None:
    rules = one(helm.template({"workloads": {"create": create}}), "ClusterRole", "perfpolicy")["rules"]
    verbs = {verb for rule in rules if "deployments" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"} | ({"create", "patch", "delete"} if create else set())


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["all", "namespaced"])
def test_without_rbac_only_the_test_brings_roles(values: Mapping[str, Any]) -> None:
    manifests = helm.template({**values, "rbac": {"create": False}})
    roles = {(each["kind"], each["metadata"]["name"]) for each in manifests if each.get("apiVersion", "").startswith("rbac.")}
    assert roles == {("Role", "perfpolicy-test"), ("RoleBinding", "perfpolicy-test")}


def test_only_the_default_class_is_everybodys_to_use() -> None:
    manifests = helm.template({"classes": {"gold": {"spec": {}}}})
    roles = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "ClusterRole" and "-use-" in each["metadata"]["name"]}
    assert roles.keys() == {f"perfpolicy-use-{name}" for name in ("development", "testing", "staging", "production", "gold")}
    assert all(rule["resourceNames"] == [name.removeprefix("perfpolicy-use-")] for name, each in roles.items() for rule in each["rules"])
    everybody = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}
    bound = [each["roleRef"]["name"] for each in manifests if each["kind"] == "ClusterRoleBinding" and everybody in each["subjects"]]
    assert bound == ["perfpolicy-use-production"]
    admission = [each["spec"]["variables"][0] for each in manifests if each["kind"] == "ValidatingAdmissionPolicy"]
    assert admission
    assert all(name["expression"].endswith(": 'production'") for name in admission), admission
