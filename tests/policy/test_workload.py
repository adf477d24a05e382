"""The workload and its Service, created or referred to."""

from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.api.policy import parse_policy
from perfpolicy.policy.facts import Facts, FactsNeeded, in_mesh, needed_facts
from perfpolicy.policy.model import Port, Protocol, Resources
from perfpolicy.policy.workload import protocol
from perfpolicy.render.ports import open_metrics_port
from perfpolicy.vocabulary import Reason
from tests.api.objects import DEPLOYMENT, TARGET, a_policy_object
from tests.policy.support import REFERRING, a_raw_service, a_target, problems, resolved, targeted

NO_SERVICE = {"workload": {"targetRef": TARGET["targetRef"]}}


def test_a_created_deployment_and_its_service_carry_the_policys_name() -> None:
    policy = resolved()
    assert (policy.workload.kind, policy.workload.name, policy.workload.selector) == ("Deployment", "shop", {"app": "shop"})
    assert (policy.service.name, policy.service.fqdn, policy.service.owned) == ("shop", "shop.shops.svc.cluster.local", True)
    assert policy.service.ports == (Port("http", 80, 8080, Protocol.HTTP),)


def test_the_metrics_port_is_a_port_of_both() -> None:
    policy = resolved({"service": {"port": 8000, "metricsPort": 9090}})
    metrics = Port("http-metrics", 9090, 9090, Protocol.HTTP)
    assert policy.service.ports == (Port("http", 8000, 8080, Protocol.HTTP), metrics)
    assert policy.workload.owned is not None
    assert policy.workload.owned.container_ports == (Port("http", 8080, 8080, Protocol.HTTP), metrics)
    assert policy.service.metrics_port == 9090


def test_the_services_port_cannot_be_the_metrics_port() -> None:
    assert [p.path for p in problems({"service": {"port": 9090, "metricsPort": 9090}})] == ["spec.service.metricsPort"]


def test_the_first_port_that_is_not_for_metrics_is_served() -> None:
    ports = [{"name": "http-metrics", "port": 9090}, {"name": "grpc", "port": 7000}]
    policy = resolved({"workload.deployment.ports": ports, "service.metricsPort": 9090})
    assert policy.service.ports[0] == Port("grpc", 80, 7000, Protocol.GRPC)


def test_app_protocol_wins_over_the_ports_name() -> None:
    assert resolved({"service.appProtocol": "Tcp"}).service.ports[0].protocol is Protocol.TCP


@pytest.mark.parametrize(
    ("app_protocol", "name", "expected"),
    [
        (None, "http", Protocol.HTTP),
        (None, "http-api", Protocol.HTTP),
        (None, "http2", Protocol.HTTP),
        (None, "grpc-orders", Protocol.GRPC),
        (None, "grpc-web", Protocol.GRPC),
        (None, "https", Protocol.TCP),
        (None, "web", Protocol.TCP),
        (None, "", Protocol.TCP),
        ("kubernetes.io/h2c", "tcp-x", Protocol.HTTP),
        ("grpc", "http", Protocol.GRPC),
        ("tcp", "http", Protocol.TCP),
    ],
)
def test_the_protocol_is_istios_choice(app_protocol: str | None, name: str, expected: Protocol) -> None:
    assert protocol(app_protocol, name) is expected


def test_resources_and_probes_are_numbers_in_the_model() -> None:
    deployment = {
        **DEPLOYMENT,
        "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "2", "memory": "512Mi"}},
        "probes": {"readiness": {"path": "/readyz", "period": "5s"}},
    }
    workload = resolved({"workload.deployment": deployment}).workload
    assert workload.requests == Resources(cpu=Decimal("0.25"))
    assert workload.limits == Resources(cpu=Decimal(2), memory=Decimal(512 * 2**20))
    assert workload.owned is not None
    assert workload.owned.readiness is not None
    assert (workload.owned.readiness.port, workload.owned.readiness.period.total_seconds()) == (8080, 5)
    assert workload.owned.liveness is None


@pytest.mark.parametrize(
    ("requests", "limits", "wrong"),
    [
        ({"cpu": "300m", "memory": "64Mi"}, {"cpu": "0.2", "memory": "64Mi"}, ["cpu"]),
        ({"cpu": "7", "memory": "1Gi"}, {"cpu": "200m", "memory": "512Mi"}, ["cpu", "memory"]),
        ({"cpu": "2"}, {"cpu": "2000m"}, []),
        ({"cpu": "7"}, {"memory": "1Mi"}, []),
    ],
)
def test_no_more_is_requested_than_the_limit(requests: dict[str, str], limits: dict[str, str], wrong: list[str]) -> None:
    found = problems({"workload.deployment": {**DEPLOYMENT, "resources": {"requests": requests, "limits": limits}}})
    assert [problem.path for problem in found] == [f"spec.workload.deployment.resources.requests.{name}" for name in wrong]


def test_a_request_is_held_against_the_limit_of_the_template_too() -> None:
    template = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "1Mi"}}}]}}
    deployment = {**DEPLOYMENT, "resources": {"requests": {"memory": "2Mi"}}, "template": template}
    assert [problem.path for problem in problems({"workload.deployment": deployment})] == [
        "spec.workload.deployment.resources.requests.memory"
    ]


def test_the_container_keeps_the_name_its_template_gives_it() -> None:
    template = {"spec": {"containers": [{"name": "main", "imagePullPolicy": "Never"}]}}
    assert resolved({"workload.deployment.template": template}).workload.container == "main"
    assert resolved().workload.container == "shop"


def test_the_templates_own_resources_count_where_the_policy_names_none() -> None:
    template = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi"}}}]}}
    assert resolved({"workload.deployment.template": template}).workload.limits.memory == Decimal(2**30)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({"status": {}}, "spec.workload.deployment.template.status"),
        ({"metadata": {"name": "x"}}, "spec.workload.deployment.template.metadata.name"),
        ({"metadata": {"labels": {"app": "other"}}}, "spec.workload.deployment.template.metadata.labels.app"),
        ({"metadata": []}, "spec.workload.deployment.template.metadata"),
        ({"metadata": {"labels": ["a"]}}, "spec.workload.deployment.template.metadata.labels"),
        ({"spec": "x"}, "spec.workload.deployment.template.spec"),
        ({"spec": {"containers": "x"}}, "spec.workload.deployment.template.spec.containers"),
        ({"spec": {"containers": ["x"]}}, "spec.workload.deployment.template.spec.containers[0]"),
        ({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}, "spec.workload.deployment.template.spec.containers[1].name"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.workload.deployment.template.spec.containers[0].name"),
    ],
)
def test_a_template_that_is_no_pod_template_is_refused(template: object, path: str) -> None:
    assert [p.path for p in problems({"workload.deployment.template": template})] == [path]


def test_a_referred_workload_is_read() -> None:
    workload = resolved(REFERRING, facts=targeted()).workload
    assert (workload.kind, workload.name, workload.container, workload.owned) == ("Deployment", "shop", "app", None)
    assert workload.requests == Resources(cpu=Decimal("0.25"))
    assert workload.limits == Resources(cpu=Decimal(1), memory=Decimal(512 * 2**20))


def test_behind_an_existing_service_its_selector_counts() -> None:
    # The Service spans the stable and the canary Deployment: what protects one must protect both.
    assert resolved(REFERRING, facts=targeted()).workload.selector == {"app": "shop"}


def test_without_an_existing_service_the_workloads_own_labels_count() -> None:
    policy = resolved({**NO_SERVICE, "service.port": 80}, facts=targeted())
    assert policy.workload.selector == {"app": "shop", "version": "stable"}
    assert policy.service.ports == (Port("http", 80, 8080, Protocol.HTTP),)
    assert policy.service.owned


def test_a_referred_workload_needs_a_service() -> None:
    (problem,) = problems(NO_SERVICE, facts=targeted())
    assert (problem.path, problem.reason) == ("spec.workload", Reason.INVALID)


def test_sidecars_are_not_the_application() -> None:
    target = a_target()
    target["spec"]["template"]["spec"]["containers"].insert(0, {"name": "istio-proxy"})
    assert resolved(REFERRING, facts=targeted(target)).workload.container == "app"


def test_named_target_ports_are_looked_up() -> None:
    assert resolved(REFERRING, facts=targeted()).service.ports == (Port("http", 80, 8080, Protocol.HTTP),)
    service = a_raw_service(ports=[{"port": 80, "targetPort": "admin"}])
    (problem,) = problems(REFERRING, facts=targeted(service=service))
    assert (problem.path, problem.reason) == ("spec.workload.serviceRef.name", Reason.TARGET_UNSUPPORTED)


def test_a_missing_target_is_reported() -> None:
    (problem,) = problems(REFERRING, facts=Facts(services={"shop": a_raw_service()}))
    assert (problem.path, problem.reason) == ("spec.workload.targetRef", Reason.TARGET_NOT_FOUND)
    assert "no Deployment 'shop' in namespace shops" in problem.message


def test_a_missing_service_is_reported() -> None:
    (problem,) = problems(REFERRING, facts=Facts(target=a_target()))
    assert (problem.path, problem.reason) == ("spec.workload.serviceRef.name", Reason.TARGET_NOT_FOUND)


@pytest.mark.parametrize(
    "selector", [{"matchLabels": {"app": "shop"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchLabels": {}}, {}]
)
def test_a_target_istio_cannot_select_is_unsupported(selector: dict[str, object]) -> None:
    (problem,) = problems(REFERRING, facts=targeted(a_target(selector=selector)))
    assert (problem.path, problem.reason) == ("spec.workload.targetRef", Reason.TARGET_UNSUPPORTED)


@pytest.mark.parametrize("selector", [{"app": "bank"}, {}, None])
def test_a_service_of_other_pods_is_unsupported(selector: dict[str, str] | None) -> None:
    (problem,) = problems(REFERRING, facts=targeted(service=a_raw_service(selector=selector)))
    assert (problem.path, problem.reason) == ("spec.workload.serviceRef.name", Reason.TARGET_UNSUPPORTED)


def test_a_service_that_leads_out_of_the_namespace_is_unsupported() -> None:
    service = a_raw_service(type="ExternalName", externalName="api.victim.svc.cluster.local")
    (problem,) = problems(REFERRING, facts=targeted(service=service))
    assert (problem.path, problem.reason) == ("spec.workload.serviceRef.name", Reason.TARGET_UNSUPPORTED)
    assert "ExternalName" in problem.message


def test_an_ambient_namespace_is_unsupported() -> None:
    (problem,) = problems(facts=Facts(namespace_labels={"istio.io/dataplane-mode": "ambient"}))
    assert problem.reason is Reason.TARGET_UNSUPPORTED


def test_needed_facts_name_what_resolving_reads() -> None:
    changes = {"network.egress": [{"toServices": [{"name": "rooms"}]}], "traffic.routes": [{"name": "a", "mirror": {"service": "shadow"}}]}
    policy = parse_policy(a_policy_object({**REFERRING, **changes}))
    assert needed_facts(policy) == FactsNeeded("shops", policy.spec.workload.target_ref, frozenset({"shop", "rooms", "shadow"}))
    assert needed_facts(parse_policy(a_policy_object())) == FactsNeeded("shops", None, frozenset())


def test_the_cluster_domain_is_the_classs() -> None:
    assert resolved(cls={"mesh.clusterDomain": "corp.local"}).service.fqdn == "shop.shops.svc.corp.local"


@pytest.mark.parametrize(
    ("namespace", "pod", "expected"),
    [
        ({"istio-injection": "enabled"}, None, True),
        ({"istio-injection": "enabled"}, "false", False),
        ({"istio.io/rev": "1-31"}, None, True),
        ({"istio-injection": "disabled", "istio.io/rev": "1-31"}, None, False),
        ({"istio-injection": "disabled"}, "true", False),
        ({}, None, False),
        ({}, "true", True),
    ],
)
def test_namespace_and_pods_decide_about_the_sidecar(namespace: dict[str, str], pod: str | None, *, expected: bool) -> None:
    labels = {"sidecar.istio.io/inject": pod} if pod else {}
    facts = Facts(namespace_labels=namespace, in_mesh=in_mesh(namespace))
    assert resolved({"workload.deployment.template": {"metadata": {"labels": labels}}}, facts=facts).in_mesh is expected


@pytest.mark.parametrize(
    ("security", "path"),
    [
        ({"mtls": "Strict"}, "spec.security.mtls"),
        ({"defaultDeny": "Enabled"}, "spec.security.defaultDeny"),
        ({"allow": [{"from": {"namespaces": ["a"]}}]}, "spec.security.allow"),
        ({"deny": [{"from": {"namespaces": ["a"]}}]}, "spec.security.deny"),
    ],
)
def test_security_without_a_sidecar_is_refused(security: dict[str, object], path: str) -> None:
    (problem,) = problems({"security": security}, facts=Facts(in_mesh=False))
    assert (problem.path, problem.reason) == (path, Reason.TARGET_UNSUPPORTED)
    assert "label the namespace istio-injection=enabled" in problem.message
    assert problems({"security": security, "mode": "Observe"}, facts=Facts(in_mesh=False)) == []


def test_a_second_port_of_the_metrics_ports_name_is_refused() -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "http-metrics", "port": 9000}]
    changes = {"workload.deployment.ports": ports, "service.metricsPort": 9090}
    assert [p.path for p in problems(changes)] == ["spec.service.metricsPort"]


def _with_ports(**ports: int) -> dict[str, Any]:
    target = a_target()
    target["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"name": n, "containerPort": number} for n, number in ports.items()]
    return target


def _listing(**ports: int) -> dict[str, Any]:
    return a_raw_service(ports=[{"name": name, "port": number, "targetPort": number} for name, number in ports.items()])


@pytest.mark.parametrize(
    ("pods", "service", "why"),
    [
        ({"http": 8080, "postgres": 5432}, {"http": 8080, "postgres": 5432}, "'postgres'"),
        ({"http": 8080, "postgres": 5432}, {"http": 8080}, "'postgres'"),
        ({"http": 8080, "postgres": 5432}, {"http": 8080, "metrics": 5432}, "'postgres', 'metrics'"),
        ({"http": 8080, "metrics": 5432}, {"http": 8080, "postgres": 5432}, "'metrics', 'postgres'"),
        ({"http": 8080}, {"http": 8080}, "none of its pods' container ports"),
        ({"http": 8080}, {"http": 8080, "metrics": 5432}, "none of its pods' container ports"),
        ({"postgres": 5432}, {}, "'postgres'"),
    ],
)
def test_a_port_of_somebody_elses_pods_is_opened_only_if_they_call_it_metrics(
    pods: dict[str, int], service: dict[str, int], why: str
) -> None:
    changes = {**REFERRING, "service": {"metricsPort": 5432}, "observability.scrape": {}, "security.mtls": "Strict"}
    (problem,) = problems(changes, facts=targeted(_with_ports(**pods), _listing(**service)))
    assert problem.path == "spec.service.metricsPort"
    assert why in problem.message
    assert "only a container port named metrics or http-metrics" in problem.message


@pytest.mark.parametrize("name", ["metrics", "http-metrics"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_port_its_pods_call_metrics_may_be_the_metrics_port(name: str, *, listed: bool) -> None:
    ports = {"http": 8080, name: 9090}
    facts = targeted(_with_ports(**ports), _listing(**(ports if listed else {"http": 8080})))
    assert resolved({**REFERRING, "service": {"metricsPort": 9090}}, facts=facts).service.metrics_port == 9090


def test_metrics_on_the_only_port_are_named_as_they_like() -> None:
    # It is not opened (render/ports.py): there is nothing to tell from the application.
    facts = targeted(_with_ports(http=8080), _listing(http=8080))
    policy = resolved({**REFERRING, "service": {"metricsPort": 8080}, "observability.scrape": {}, "security.mtls": "Strict"}, facts=facts)
    assert open_metrics_port(policy) is None


def test_a_service_made_for_a_target_opens_no_other_port_either() -> None:
    changes = {**NO_SERVICE, "service": {"port": 80, "metricsPort": 5432}}
    (problem,) = problems(changes, facts=targeted(_with_ports(http=8080, postgres=5432)))
    assert problem.path == "spec.service.metricsPort"
    assert problems(changes, facts=targeted(_with_ports(http=8080, metrics=5432))) == []


def test_a_port_declared_for_something_else_is_not_the_metrics_port() -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "tcp-sql", "port": 5432}]
    (problem,) = problems({"workload.deployment.ports": ports, "service.metricsPort": 5432})
    assert problem.path == "spec.service.metricsPort"
    ports[1]["name"] = "metrics"
    assert problems({"workload.deployment.ports": ports, "service.metricsPort": 5432}) == []
