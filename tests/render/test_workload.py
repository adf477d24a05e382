"""The Deployment and Service a policy creates."""

import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.render import Manifest
from tests.builders import a_policy, a_port, a_probe, a_service, a_workload, an_owned_deployment, observability, traffic
from tests.render.support import all_of, spec_of


def policy(*, workload: dict[str, Any] | None = None, owned: dict[str, Any] | None = None, **changes: Any) -> model.Policy:
    return a_policy(workload=a_workload(owned=an_owned_deployment(**(owned or {})), **(workload or {})), **changes)


def template(policy: model.Policy) -> Manifest:
    rendered: Manifest = spec_of(policy, "Deployment")["template"]
    return rendered


def container(policy: model.Policy, index: int = 0) -> Manifest:
    rendered: Manifest = template(policy)["spec"]["containers"][index]
    return rendered


def test_an_existing_workload_and_service_are_left_alone() -> None:
    assert all_of(a_policy(), "Deployment") == all_of(a_policy(), "Service") == {}


def test_service_ports_say_their_protocol() -> None:
    ports = (a_port(), a_port("db", 5432, 5432, model.Protocol.TCP))
    assert spec_of(a_policy(service=a_service(owned=True, ports=ports)), "Service") == {
        "selector": {"app": "operation-service"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"},
            {"name": "db", "port": 5432, "targetPort": 5432, "protocol": "TCP", "appProtocol": "tcp"},
        ],
    }


def test_the_selector_is_stable_and_the_pods_carry_it() -> None:
    spec = spec_of(policy(), "Deployment")
    assert spec["selector"] == {"matchLabels": {"app": "operation-service"}}
    assert spec["replicas"] == 5
    assert spec["template"]["metadata"]["labels"] == {"app": "operation-service", "sidecar.istio.io/inject": "true"}


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        ("nginx", "Always"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:latest", "Always"),
        ("nginx:latest@sha256:abc", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx:1.27", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_image_as_the_api_servers_default_does_at_first(image: str, pulled: str) -> None:
    assert container(policy(owned={"image": image}))["imagePullPolicy"] == pulled


def test_the_authors_pull_policy_stays() -> None:
    written = {"template": {"spec": {"containers": [{"name": a_workload().container, "imagePullPolicy": "Never"}]}}}
    assert container(policy(owned=written))["imagePullPolicy"] == "Never"


def test_no_injection_outside_the_mesh() -> None:
    assert template(policy(in_mesh=False))["metadata"]["labels"] == {"app": "operation-service"}


def test_pods_belong_to_the_first_subset() -> None:
    subsets = tuple(model.Subset(name, {"version": name}) for name in ("stable", "canary"))
    assert template(policy(traffic=traffic(subsets=subsets)))["metadata"]["labels"]["version"] == "stable"


def test_pods_stay_in_the_subset_the_author_put_them_into() -> None:
    subsets = tuple(model.Subset(name, {"version": name}) for name in ("stable", "canary"))
    written = {"template": {"metadata": {"labels": {"version": "canary", "app": "other"}}}}
    labels = template(policy(owned=written, traffic=traffic(subsets=subsets)))["metadata"]["labels"]
    assert (labels["version"], labels["app"]) == ("canary", "operation-service")


def test_scrape_annotations_carry_the_applications_port() -> None:
    assert template(policy(in_mesh=False))["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9090",
        "prometheus.io/path": "/metrics",
    }


def test_no_annotations_without_scraping_and_mesh() -> None:
    assert "annotations" not in template(policy(observability=observability(scrape=None), in_mesh=False))["metadata"]


def test_proxies_keep_the_counters_that_alerts_and_dashboards_read_and_no_others() -> None:
    annotations = template(policy(observability=observability(scrape=None)))["metadata"]["annotations"]
    config = json.loads(annotations["proxy.istio.io/config"])
    (pattern,) = config["proxyStatsMatcher"]["inclusionRegexps"]
    kept = ["ssl.handshake", "ssl.connection_error", "ssl.fail_verify_error", "ssl.fail_verify_no_cert", "ssl.fail_verify_san"]
    for counter in (*kept, "downstream_cx_active"):
        assert re.fullmatch(pattern, f"listener.0.0.0.0_15006.{counter}")
    for other in ("listener.0.0.0.0_15006.ssl.ciphers.X", "listener.0.0.0.0_15090.downstream_cx_active", "cluster.x.ssl.handshake"):
        assert not re.fullmatch(pattern, other)


def test_a_disabled_alert_replaces_no_pod() -> None:
    assert template(policy(observability=observability(alerts=None))) == template(policy())


def test_environment_keeps_its_order_since_variables_read_earlier_ones() -> None:
    env = {"B": "1", "A": "$(B)"}
    assert container(policy(owned={"env": env}))["env"] == [{"name": "B", "value": "1"}, {"name": "A", "value": "$(B)"}]


def test_resources_in_kubernetes_form() -> None:
    assert container(policy())["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }


def test_resources_not_asked_for_are_left_out() -> None:
    nothing = {"requests": model.Resources(), "limits": model.Resources(memory=Decimal(1024))}
    assert container(policy(workload=nothing))["resources"] == {"limits": {"memory": "1Ki"}}
    assert "resources" not in container(policy(workload={"requests": model.Resources(), "limits": model.Resources()}))


def test_probes() -> None:
    rendered = container(policy(owned={"readiness": a_probe("/ready", initial_delay=timedelta(milliseconds=1500))}))
    assert rendered["readinessProbe"] == {
        "httpGet": {"path": "/ready", "port": 8080},
        "initialDelaySeconds": 2,
        "periodSeconds": 10,
        "timeoutSeconds": 1,
        "failureThreshold": 3,
    }
    assert "livenessProbe" not in rendered


def test_a_port_behind_two_names_is_one_container_port() -> None:
    ports = (a_port("http", 80, 8080), a_port("http2", 81, 8080), a_port("grpc", 82, 8082))
    assert [(p["name"], p["containerPort"]) for p in container(policy(owned={"container_ports": ports}))["ports"]] == [
        ("http", 8080),
        ("grpc", 8082),
    ]


def test_hardening_is_a_default_the_author_may_change() -> None:
    written = {
        "spec": {
            "securityContext": {"seccompProfile": {"type": "Unconfined"}, "fsGroup": 5},
            "containers": [{"name": "operation-service", "securityContext": {"allowPrivilegeEscalation": True}}],
        }
    }
    plain, changed = policy(), policy(owned={"template": written})
    assert template(plain)["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert container(plain)["securityContext"] == {"allowPrivilegeEscalation": False}
    assert template(changed)["spec"]["securityContext"] == {"seccompProfile": {"type": "Unconfined"}, "fsGroup": 5}
    assert container(changed)["securityContext"] == {"allowPrivilegeEscalation": True}


def test_the_authors_template_lies_beneath_the_named_fields() -> None:
    written = {
        "metadata": {"annotations": {"prometheus.io/port": "1", "team": "ce-hub"}},
        "spec": {
            "serviceAccountName": "operation",
            "containers": [
                {"name": "log", "image": "log:1"},
                {
                    "name": "operation-service",
                    "image": "other",
                    "command": ["/app"],
                    "env": [{"name": "A", "value": "theirs"}, {"name": "B"}],
                },
            ],
            "nodeName": None,
        },
    }
    rendered = policy(owned={"template": written, "env": {"A": "ours"}})
    assert template(rendered)["metadata"]["annotations"]["prometheus.io/port"] == "9090"
    assert template(rendered)["metadata"]["annotations"]["team"] == "ce-hub"
    assert template(rendered)["spec"]["serviceAccountName"] == "operation"
    assert "nodeName" not in template(rendered)["spec"]
    assert container(rendered)["image"] == "localhost/backend:lab"
    assert container(rendered)["command"] == ["/app"]
    assert container(rendered)["env"] == [{"name": "A", "value": "ours"}, {"name": "B"}]
    assert container(rendered, 1) == {"name": "log", "image": "log:1"}
