"""One proof or more for every kind of child: what stops working when nobody renders it, shown by traffic, scrapes, rules or reachability.

Each proof asks the running world once and raises AssertionError (or CommandError) where the promise does not hold. e2e/test_kinds.py waits
until each holds; e2e/mutate.py takes one kind away after the other and waits until its proofs fail.
"""

import json
import re
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any

from e2e.api import api_of
from e2e.asking import Answer
from e2e.cluster import Cluster
from e2e.waiting import eventually
from e2e.world import Faults, World
from lab import mesh, prometheus, tracing, workloads
from lab.errors import CommandError
from lab.load import NAMESPACE as CALLERS
from perfpolicy.promql import names, proxies
from tests.reachability import Cluster as Reachability
from tests.reachability import Host, Pod
from tools.chart import overview

Proof = Callable[[World], None]
Way = tuple[Pod | Host, Pod | Host, int, str]


def the_pods_of_the_deployment_answer(world: World) -> None:
    """With the environment of the spec, each of its two pods."""
    answers = world.ask("web", "/api/who", times=30)
    assert {answer.status for answer in answers} == {200}, statuses(answers)
    assert {answer.headers["x-version"] for answer in answers} == {"from-the-policy"}
    deployment = world.cluster.get("deployment", "web", world.namespace)
    assert deployment is not None
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == world.uid("web")
    assert {answer.headers["x-pod"] for answer in answers} == set(world.pods("web"))


def an_unready_pod_gets_no_requests(world: World) -> None:
    """The readiness probe of the spec is asked: a pod that fails it leaves the endpoints."""
    broken, healthy = sorted(world.pods("web"))
    with world.faults(world.only(broken), not_ready=True):
        world.cluster.kubectl("wait", "pod", broken, "-n", world.namespace, "--for=condition=Ready=False", "--timeout=10s")
        pods = endpoints(world, "web")
        assert pods == {healthy}, pods
    world.cluster.kubectl("wait", "pod", broken, "-n", world.namespace, "--for=condition=Ready", "--timeout=10s")


def the_service_is_found_by_name_and_address(world: World) -> None:
    """DNS and ClusterIP, from a pod with a sidecar."""
    service = world.cluster.get("service", "web", world.namespace)
    address = service["spec"]["clusterIP"] if service else "nowhere"
    for url in (f"web.{world.namespace}.svc.cluster.local", address):
        answer = world.ask_url(f"http://{url}/api/who")
        assert (answer.status, answer.headers.get("x-service")) == (200, "web"), (url, answer.status, answer.error)
    assert endpoints(world, "web") == set(world.pods("web"))


def a_slow_request_ends_at_the_timeout(world: World) -> None:
    """1 s for this route, the backend needs 3."""
    with world.faults("app=web", latency_ms=3000):
        (answer,) = world.ask("web", "/api/plain")
    assert answer.status == 504, answer
    assert 900 <= answer.milliseconds < 2000, answer.milliseconds


def retries_recover_a_request_that_fails_twice(world: World) -> None:
    """Each of the two pods fails once; Istio's own default would not retry a 500."""
    failing = Faults(world, "app=web", {"fail_first_n": 1, "error_code": 500})
    with failing:
        (answer,) = world.ask("web", "/api/again")
        left = failing.left()
    assert answer.status == 200, answer
    assert left == [0, 0], left


def a_header_chooses_the_canary(world: World) -> None:
    """x-canary: true goes to the canary, everything else to stable."""
    chosen = Counter(answer.headers.get("x-version") for answer in world.ask("shop", "/", times=15, x_canary="true"))
    others = Counter(answer.headers.get("x-version") for answer in world.ask("shop", "/", times=15))
    assert (chosen, others) == ({"canary": 15}, {"stable": 15}), f"with the header {dict(chosen)}, without {dict(others)}"


def weights_are_kept(world: World) -> None:
    """20 % of 300 requests to the canary, within four standard deviations."""
    asked, share = 300, 0.2
    versions = Counter(answer.headers.get("x-version") for answer in world.ask("shop", "/weighted", times=asked))
    assert versions.total() == asked
    assert set(versions) == {"stable", "canary"}, versions
    assert abs(versions["canary"] - asked * share) <= 4 * sqrt(asked * share * (1 - share)), versions


def the_granted_host_is_served_by_the_gateway(world: World) -> None:
    """With the same routes; a host nobody was granted is not."""
    answer = world.ask_gateway(world.host, "/api/who")
    assert (answer.status, answer.headers.get("x-service")) == (200, "web"), answer
    with world.faults("app=web", latency_ms=3000):
        assert world.ask_gateway(world.host, "/api/plain").status == 504
    assert world.ask_gateway(f"other.{world.namespace}.e2e.test", "/api/who").status == 404


def a_failing_pod_is_ejected(world: World) -> None:
    """One of two pods fails every request: after three failures callers leave it out, a second later where another change of health has
    just been passed on (Envoy's update_merge_window).
    """
    broken, healthy = sorted(world.pods("web"))

    def asked() -> list[Answer]:
        # By chance one of the two would be left out of so many once in a billion times.
        return world.ask("web", "/api/plain", times=30)

    # One that a former look has left out is let in first.
    eventually(lambda: {answer.headers.get("x-pod") for answer in asked()} == {broken, healthy})
    seen: list[Answer] = []

    def left_out() -> None:
        answers = asked()
        seen.extend(answers)
        assert {(answer.status, answer.headers.get("x-pod")) for answer in answers} == {(200, healthy)}, statuses(answers)

    with world.faults(world.only(broken), error_ratio=1, error_code=500):
        eventually(left_out, seconds=10)
    assert len([answer for answer in seen if answer.status == 500]) >= 3, statuses(seen)


def plaintext_is_refused_but_for_the_metrics_port(world: World) -> None:
    """STRICT: a caller without a sidecar is cut off, not answered; the metrics port still answers it."""
    for address in world.pods("web").values():
        application, metrics = world.ask_from_outside(
            f"http://{address}:{workloads.PORT}/api/who",
            f"http://{address}:{workloads.METRICS_PORT}/metrics",
        )
        assert application.status == 0, f"plaintext was answered {application.status}"
        assert "reset" in application.error or "EOF" in application.error, application.error
        assert metrics.status == 200, (metrics.status, metrics.error)
        assert "process_cpu_seconds_total" in metrics.body, metrics.body[:300]


def prometheus_scrapes_the_pods(world: World) -> None:
    """Straight at the metrics port, without an identity in the mesh."""
    found = [target for target in prometheus.targets(world.lab, "kubernetes-pods") if target["labels"].get("namespace") == world.namespace]
    urls = {target["scrapeUrl"]: target["health"] for target in found if target["labels"].get("app") == "web"}
    wanted = {f"http://{address}:{workloads.METRICS_PORT}/metrics": "up" for address in world.pods("web").values()}
    assert urls == wanted, urls


def the_pod_monitor_is_followed(world: World) -> None:
    """As a Prometheus run by prometheus-operator would, by the lab's own translation: the opened port of every pod, under STRICT."""
    found = prometheus.targets(world.lab, f"{world.namespace}/web")
    urls = {target["scrapeUrl"]: (target["health"], target["scrapeInterval"], target["labels"]["pod"]) for target in found}
    wanted = {f"http://{ip}:{workloads.METRICS_PORT}/metrics": ("up", "5s", pod) for pod, ip in world.pods("web").items()}
    assert urls == wanted, urls


def the_sidecars_count_who_fails_to_authenticate(world: World) -> None:
    """A caller without a certificate is cut off, and counted where Prometheus looks, of each pod."""
    pods = world.pods("web")
    for address in pods.values():
        handshake_without_a_certificate(address)
    (refused,) = (name for name in proxies.FAILURES if name.endswith("no_cert"))
    counted = prometheus.query(world.lab, f'{refused}{{namespace="{world.namespace}",listener_address=~".*_15006"}} > 0')
    assert {row["metric"]["pod"] for row in counted} == set(pods), counted
    left = prometheus.query(world.lab, f'{proxies.CERTIFICATE_LEFT}{{namespace="{world.namespace}",resource_name="default"}}')
    assert set(pods) <= {row["metric"]["pod"] for row in left}, left
    assert all(0 < float(row["value"][1]) <= 24 * 3600 for row in left), left


def handshake_without_a_certificate(address: str) -> None:
    """As a caller outside the mesh would; under TLS 1.3 it learns of the refusal when it reads."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["istio"])
    try:
        with socket.create_connection((address, workloads.PORT), timeout=5) as raw, context.wrap_socket(raw) as wrapped:
            answer = wrapped.recv(1)
    except ssl.SSLError:
        return
    assert not answer, "a caller without a certificate was answered"


def every_metric_the_rules_read_exists(world: World) -> None:
    """A name that no exporter writes would make a rule silent for ever."""
    rule = world.cluster.get("prometheusrule", "web", world.namespace)
    assert rule is not None
    read = set(re.findall(r"\b((?:istio|envoy|container)_[a-z_]+)\{", json.dumps(rule["spec"])))
    assert {proxies.CERTIFICATE_LEFT, proxies.HANDSHAKES, *proxies.FAILURES} < read, read
    found = prometheus.query(world.lab, f'count by (__name__) ({{__name__=~"{"|".join(read)}",namespace="{world.namespace}"}})')
    assert read == {row["metric"]["__name__"] for row in found}, read - {row["metric"]["__name__"] for row in found}


def one_right_and_one_wrong_is_refused(world: World) -> None:
    """Identity, method and path must all fit; the metrics port is open to everybody for the metrics alone."""
    expected = {
        ("GET", "web", "/api/who"): 200,
        ("DELETE", "web", "/api/who"): 403,
        ("GET", "web", "/admin"): 403,
        # From the pods of shop, which have another identity: the same method and path.
        ("GET", "shop", "/api/through/who"): 403,
    }
    answered = {key: world.ask(key[1], key[2], method=key[0])[0].status for key in expected}
    assert answered == expected, answered
    assert world.ask_gateway(world.host, "/api/who").status == 200
    assert world.ask_gateway(world.host, "/admin").status == 403
    metrics = [f"http://{address}:{workloads.METRICS_PORT}" for address in world.pods("web").values()]
    asked = world.ask_from_outside(*(f"{port}/{path}" for port in metrics for path in ("metrics", "api/who")))
    assert [answer.status for answer in asked] == [200, 403] * len(metrics), statuses(asked)


def requests_over_the_limit_are_refused(world: World) -> None:
    """Two of each client at each of the two pods; other paths are not limited."""
    client = secrets.token_hex(4)
    statuses_of = Counter(answer.status for answer in world.ask("web", "/api/limited?page=1", times=12, x_client=client))
    assert statuses_of[429] >= 12 - 2 * 2, statuses_of
    assert {answer.status for answer in world.ask("web", "/api/who", times=6, x_client=client)} == {200}


def the_sidecars_report_spans(world: World) -> None:
    """Of every request a trace, which the application is told of and the receiver gets; at once after five spans."""
    answers = world.ask("web", "/api/who", times=10)
    arrived = [json.loads(answer.body)["headers"] for answer in answers]
    assert {headers.get("x-b3-sampled") for headers in arrived} == {"1"}, arrived
    traces = [headers["x-b3-traceid"] for headers in arrived]

    def reported() -> None:
        (span,) = tracing.spans(world.lab, traces[0])
        assert (span["kind"], span["localEndpoint"]["serviceName"]) == ("SERVER", f"web.{world.namespace}"), span

    eventually(reported, seconds=15)


def an_eviction_beyond_the_budget_is_refused(world: World) -> None:
    """Both pods are to stay. A dry run: the API server judges it as it would the eviction itself."""
    for pod in world.pods("web"):
        problem = evict(world.cluster, world.namespace, pod, dry_run=True)
        assert "violate the pod's disruption budget" in problem, problem or f"{pod} would go"


def the_autoscaler_keeps_its_bounds(world: World) -> None:
    """Somebody scales by hand beyond the two pods that are the most and the fewest."""

    def wanted() -> int:
        return int((world.cluster.get("deployment", "web", world.namespace) or {})["spec"]["replicas"])

    world.cluster.kubectl("scale", "deployment", "web", "-n", world.namespace, "--replicas=3")
    try:
        eventually(lambda: wanted() == 2, seconds=20)
    finally:
        world.cluster.kubectl("scale", "deployment", "web", "-n", world.namespace, "--replicas=2")
    eventually(lambda: len(world.pods("web")) == 2)


def only_the_named_callers_can_connect(world: World) -> None:
    """Computed from the live NetworkPolicies, namespaces and pods (no CNI in the lab enforces them)."""
    cluster, (web, *_) = reachability(world), live_pods(world, world.namespace, "app=web")
    shop = next(iter(live_pods(world, world.namespace, "app=shop")))
    caller = next(iter(live_pods(world, CALLERS, "app=k6")))
    gateway = next(iter(live_pods(world, mesh.SYSTEM, "istio=ingress")))
    istiod = next(iter(live_pods(world, mesh.SYSTEM, "app=istiod")))
    dns = next(iter(live_pods(world, "kube-system", "app=coredns")))
    scraper, node = Pod("prometheus", prometheus.NAMESPACE, {}, "10.213.3.250"), Host("node", world.lab.host)
    must: list[Way] = [
        (caller, web, 8080, "TCP"), (gateway, web, 8080, "TCP"), (scraper, web, 9090, "TCP"), (scraper, web, 15020, "TCP"),
        (scraper, web, 15090, "TCP"), (node, web, 15021, "TCP"), (node, web, 15020, "TCP"), (web, dns, 53, "UDP"), (web, dns, 53, "TCP"),
        (web, istiod, 15012, "TCP"), (web, shop, 8080, "TCP"),
    ]  # fmt: skip
    must_not: list[Way] = [
        (shop, web, 8080, "TCP"), (caller, web, 9090, "TCP"), (caller, web, 8081, "TCP"), (scraper, web, 8080, "TCP"),
        (node, web, 8080, "TCP"), (web, caller, 8080, "TCP"), (web, node, 443, "TCP"), (web, dns, 8080, "TCP"), (web, shop, 8081, "TCP"),
    ]  # fmt: skip
    wrong = [f"{way[0].name} → {way[1].name}:{way[2]} is closed" for way in must if not cluster.reaches(*way)]
    wrong += [f"{way[0].name} → {way[1].name}:{way[2]} is open" for way in must_not if cluster.reaches(*way)]
    assert not wrong, wrong


def rules_of_the_prometheus_rule_are_evaluated(world: World) -> None:
    """Loaded from the PrometheusRule, healthy, and their series exist."""
    rules_are_evaluated(world, "prometheusrule")


def rules_of_the_config_map_are_evaluated(world: World) -> None:
    """The same rules from the ConfigMap, where PrometheusRule is not served."""
    rules_are_evaluated(world, "configmap")


def rules_are_evaluated(world: World, source: str) -> None:
    """Every rule of both policies is loaded from files of this source, without an evaluation error, and has made its series."""
    for policy in ("web", "shop"):
        prefix = f"{source}_{world.namespace}_{policy}"
        groups = [group for group in prometheus.rule_groups(world.lab) if group["file"].rpartition("/")[2].startswith(prefix)]
        assert len(groups) == 2, f"{[group['file'] for group in groups]} of {prefix}"
        bad = [
            (rule["name"], rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"] if rule["health"] == "err"
        ]
        assert not bad, bad
        assert all(rule["health"] == "ok" for group in groups if group["name"].endswith("/steps") for rule in group["rules"])
        for series in (names.REVISION, names.OFFERED_RATE):
            rows = prometheus.query(world.lab, f'{series}{{policy="{policy}",policy_uid="{world.uid(policy)}"}}')
            assert len(rows) == 1, (series, policy, rows)


def every_panel_of_the_dashboards_shows_something(world: World) -> None:
    """The policy's own, as Grafana's sidecar would find it, and the one over all policies; with requests just now."""
    world.ask("web", "/api/who", times=5)
    found = world.lab.get("configmaps", "-n", world.namespace, "-l", "grafana_dashboard=1")["items"]
    assert [each["metadata"]["name"] for each in found] == ["web-dashboard"]
    own = json.loads(next(iter(found[0]["data"].values())))
    for dashboard in (own, overview()):
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                asked = target["expr"].replace("$namespace", world.namespace)
                assert prometheus.query(world.lab, asked), f"{dashboard['title']}, {panel['title']}, is empty: {asked}"


PROOFS: dict[str, tuple[Proof, ...]] = {
    "NetworkPolicy": (only_the_named_callers_can_connect,),
    "PeerAuthentication": (plaintext_is_refused_but_for_the_metrics_port,),
    "AuthorizationPolicy": (one_right_and_one_wrong_is_refused,),
    "EnvoyFilter": (requests_over_the_limit_are_refused,),
    "PodDisruptionBudget": (an_eviction_beyond_the_budget_is_refused,),
    "Service": (the_service_is_found_by_name_and_address,),
    "DestinationRule": (a_failing_pod_is_ejected, a_header_chooses_the_canary),
    "VirtualService": (
        a_slow_request_ends_at_the_timeout,
        retries_recover_a_request_that_fails_twice,
        a_header_chooses_the_canary,
        weights_are_kept,
        the_granted_host_is_served_by_the_gateway,
    ),
    "Telemetry": (the_sidecars_report_spans,),
    "HorizontalPodAutoscaler": (the_autoscaler_keeps_its_bounds,),
    "Deployment": (the_pods_of_the_deployment_answer, an_unready_pod_gets_no_requests, the_sidecars_count_who_fails_to_authenticate),
    "PodMonitor": (the_pod_monitor_is_followed,),
    "PrometheusRule": (rules_of_the_prometheus_rule_are_evaluated, every_metric_the_rules_read_exists),
    "ConfigMap": (rules_of_the_config_map_are_evaluated, every_panel_of_the_dashboards_shows_something),
}
"""By kind of child. The ConfigMap's first holds only where PrometheusRule is not served."""


def fails(proof: Proof, world: World) -> str:
    """Why the proof does not hold; empty where it does."""
    try:
        proof(world)
    except (AssertionError, CommandError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def holds(proof: Proof, world: World) -> None:
    """One look: an assertion says why the proof does not hold."""
    problem = fails(proof, world)
    assert not problem, f"{proof.__name__}: {problem}"


def statuses(answers: Any) -> str:
    """Statuses in order, in one word."""
    return " ".join(str(answer.status) for answer in answers)


def evict(cluster: Cluster, namespace: str, pod: str, *, dry_run: bool = False) -> str:
    """Ask the eviction API for a pod, as a drain does; the refusal, empty where it goes."""
    return api_of(cluster.lab.kubeconfig).evict(pod, namespace, dry_run=dry_run)


def endpoints(world: World, service: str) -> set[str]:
    """Names of the ready pods behind a service."""
    slices = world.lab.get("endpointslices", "-n", world.namespace, "-l", f"kubernetes.io/service-name={service}")["items"]
    return {e["targetRef"]["name"] for each in slices for e in each.get("endpoints") or () if e["conditions"].get("ready")}


def reachability(world: World) -> Reachability:
    """The oracle, over every NetworkPolicy and namespace of the cluster."""
    namespaces = {each["metadata"]["name"]: each["metadata"]["labels"] for each in world.lab.get("namespaces")["items"]}
    return Reachability(namespaces, tuple(world.lab.get("networkpolicies", "--all-namespaces")["items"]))


def live_pods(world: World, namespace: str, selector: str) -> Iterator[Pod]:
    """Running pods, as the oracle sees them."""
    for pod in world.lab.get("pods", "-n", namespace, "-l", selector)["items"]:
        ports = {p["name"]: p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports", ()) if "name" in p}
        yield Pod(pod["metadata"]["name"], namespace, pod["metadata"]["labels"], pod["status"].get("podIP", "0.0.0.0"), ports)  # noqa: S104
