"""Models for tests, built by name instead of by thirty arguments.

`a_policy()` is a small policy on an existing HTTP Deployment in the mesh; `a_full_policy()` asks for every capability. Both and every
`a_…()` take changes of their own fields by keyword, so a test names only what it is about: `a_policy(traffic=a_traffic(subsets=…))`.
`a_policy` also takes `name`, `namespace` and `uid`, which reach every place that follows from them (workload, Service, FQDN).
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS

POLICY_UID = "0b0a4c8e-5a51-4a5c-9d0e-3d7b0c1f6a11"


def a_port(name: str = "http", number: int = 80, target: int = 8080, protocol: model.Protocol = model.Protocol.HTTP) -> model.Port:
    """One Service port."""
    return model.Port(name, number, target, protocol)


def a_probe(path: str = "/healthz", **changes: Any) -> model.Probe:
    """An HTTP probe on 8080."""
    base = model.Probe(path, 8080, timedelta(0), timedelta(seconds=10), timedelta(seconds=1), 3)
    return replace(base, **changes)


def an_owned_deployment(**changes: Any) -> model.OwnedDeployment:
    """A Deployment the policy creates."""
    base = model.OwnedDeployment(
        image="localhost/backend:lab",
        replicas=5,
        container_ports=(a_port("http", 8080, 8080), a_port("http-metrics", 9090, 9090)),
        env={},
        liveness=None,
        readiness=None,
        template={},
    )
    return replace(base, **changes)


def a_workload(**changes: Any) -> model.Workload:
    """An existing Deployment named operation-service."""
    base = model.Workload(
        kind="Deployment",
        name="operation-service",
        selector={"app": "operation-service"},
        container="operation-service",
        requests=model.Resources(cpu=Decimal("0.25"), memory=Decimal(256 * 1024**2)),
        limits=model.Resources(cpu=Decimal("0.5"), memory=Decimal(512 * 1024**2)),
        owned=None,
    )
    return replace(base, **changes)


def a_service(**changes: Any) -> model.Service:
    """An existing Service: http 80 to 8080."""
    base = model.Service(
        name="operation-service",
        fqdn="operation-service.ce-hub.svc.cluster.local",
        owned=False,
        ports=(a_port(),),
        metrics_port=9090,
    )
    return replace(base, **changes)


def an_sli(**changes: Any) -> model.Sli:
    """Destination-reported, 5xx and the usual gRPC codes are bad."""
    return replace(model.Sli(model.Reporter.DESTINATION, ("5xx",), (2, 4, 13, 14, 15)), **changes)


def thresholds(**changes: Any) -> model.Thresholds:
    """p50 100 ms, p95 500 ms, p99 1 s, errors 5 %, rps 1000/5000/10000, cpu 70 %, memory 80 %, over 5 m."""
    base = model.Thresholds(
        window=timedelta(minutes=5),
        latency=(
            model.LatencyLimit("p50", Decimal("0.5"), timedelta(milliseconds=100)),
            model.LatencyLimit("p95", Decimal("0.95"), timedelta(milliseconds=500)),
            model.LatencyLimit("p99", Decimal("0.99"), timedelta(seconds=1)),
        ),
        error_rate=Decimal("0.05"),
        throughput=model.Throughput(Decimal(1000), Decimal(5000), Decimal(10000)),
        cpu=Decimal("0.7"),
        memory=Decimal("0.8"),
    )
    return replace(base, **changes)


def an_objective(**changes: Any) -> model.Objective:
    """99.9 % availability over 30 days."""
    return replace(model.Objective("availability", Decimal("0.999"), 30, None), **changes)


def a_provider(**changes: Any) -> model.Provider:
    """A Prometheus without authentication."""
    base = model.Provider(
        address="http://prometheus.monitoring.svc:9090",
        tenant=None,
        auth_file=None,
        timeout=timedelta(seconds=10),
        scrape_interval=timedelta(seconds=15),
        rule_interval=timedelta(seconds=30),
        query_offset=None,
        matchers=(),
    )
    return replace(base, **changes)


def a_metrics_source(**changes: Any) -> model.MetricsSource:
    """The Istio source at `a_provider()`."""
    base = model.MetricsSource(
        provider=a_provider(),
        source=model.IstioSource(),
        bounds=ISTIO_BOUNDS_MS,
        minimum_rate=Decimal("0.1"),
        no_data_hold=False,
        no_traffic_met=False,
        slow_request=timedelta(seconds=1),
    )
    return replace(base, **changes)


def a_window(**changes: Any) -> model.MaintenanceWindow:
    """Two hours every week, from the third of January 2027 on."""
    base = model.MaintenanceWindow("patches", datetime(2027, 1, 3, 2, tzinfo=UTC), timedelta(hours=2), timedelta(days=7))
    return replace(base, **changes)


def a_match(**changes: Any) -> model.RouteMatch:
    """Prefix match on /api."""
    base = model.RouteMatch(path=model.StringMatch(model.MatchKind.PREFIX, "/api"), method=None, headers=(), query=())
    return replace(base, **changes)


def a_route(**changes: Any) -> model.Route:
    """Everything to all pods, nothing else."""
    base = model.Route(
        name="default",
        matches=(),
        rewrite_prefix=None,
        redirect=None,
        timeout=None,
        retries=None,
        fault=None,
        mirror=None,
        request_headers=model.HeaderEdits(),
        response_headers=model.HeaderEdits(),
        cors=None,
        destinations=(model.Destination(None, 100),),
    )
    return replace(base, **changes)


def retries(**changes: Any) -> model.Retries:
    """3 retries of 10 s each."""
    base = model.Retries(3, timedelta(seconds=10), ("5xx", "gateway-error", "connect-failure", "refused-stream"))
    return replace(base, **changes)


def a_load_balancer(**changes: Any) -> model.LoadBalancer:
    """Least request without warm-up."""
    return replace(model.LoadBalancer(model.Algorithm.LEAST_REQUEST, None, None, False, None), **changes)


def a_connection_pool(**changes: Any) -> model.ConnectionPool:
    """At most 10 connections, idle 5 min, lifetime 1 h."""
    base = model.ConnectionPool(
        max_connections=10,
        connect_timeout=None,
        idle_timeout=timedelta(minutes=5),
        max_connection_duration=timedelta(hours=1),
        max_pending_requests=None,
        max_requests=None,
        max_requests_per_connection=None,
    )
    return replace(base, **changes)


def a_circuit_breaker(**changes: Any) -> model.CircuitBreaker:
    """5 errors in 30 s eject for 30 s, at most half."""
    return replace(model.CircuitBreaker(5, timedelta(seconds=30), timedelta(seconds=30), 50, 0), **changes)


def a_rate_limit(**changes: Any) -> model.RateLimit:
    """10 requests a minute, all clients together."""
    return replace(model.RateLimit("", None, None, 10, timedelta(minutes=1), ()), **changes)


def a_rate_limit_service(**changes: Any) -> model.RateLimitService:
    """ratelimit.rate-limit:8081, fail open, after 100 ms."""
    base = model.RateLimitService("rate-limit", "ratelimit.rate-limit.svc.cluster.local", 8081, False, timedelta(milliseconds=100))
    return replace(base, **changes)


def a_proxy(**changes: Any) -> model.Proxy:
    """Nothing asked for."""
    return replace(model.Proxy(), **changes)


def traffic(**changes: Any) -> model.Traffic:
    """Nothing asked for."""
    return replace(model.Traffic((), (), (), (), None, None, None), **changes)


def a_scaling(**changes: Any) -> model.Scaling:
    """Two to ten pods at 70 % of the CPU request."""
    return replace(model.Scaling(2, 10, 70, None), **changes)


def a_budget(**changes: Any) -> model.DisruptionBudget:
    """A quarter of the pods may be missing."""
    return replace(model.DisruptionBudget(Decimal("0.25"), None), **changes)


def security(**changes: Any) -> model.Security:
    """Nothing asked for."""
    return replace(model.Security(None, (), (), False), **changes)


def access_rule(
    *,
    principals: tuple[str, ...] = (),
    namespaces: tuple[str, ...] = (),
    ip_blocks: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    paths: tuple[str, ...] = (),
    ports: tuple[int, ...] = (),
    hosts: tuple[str, ...] = (),
) -> model.AccessRule:
    """One rule; a side with nothing in it is None (everybody / everything)."""
    source = model.AccessSource(principals, namespaces, ip_blocks) if principals or namespaces or ip_blocks else None
    target = model.AccessTarget(methods, paths, ports, hosts) if methods or paths or ports or hosts else None
    return model.AccessRule(source, target)


def a_peer(**changes: Any) -> model.NetworkPeer:
    """Every pod of the own namespace."""
    return replace(model.NetworkPeer(namespace_labels=None, pod_labels={}, cidr=None), **changes)


def network(**changes: Any) -> model.Network:
    """Both directions restricted to what the policy itself needs."""
    return replace(model.Network(ingress=(), egress=(), mesh_namespace="istio-system", metrics_namespace="monitoring"), **changes)


def observability(**changes: Any) -> model.Observability:
    """Scraped and alerted on, rules labelled for a Prometheus named `lab`."""
    base = model.Observability(
        scrape=model.Scrape("/metrics", timedelta(seconds=15)),
        alerts=model.Alerts(labels={"team": "ce-hub"}, runbook=None, disabled=()),
        rule_labels={"prometheus": "lab"},
        monitor_labels={"prometheus": "lab"},
        dashboard_labels={"grafana_dashboard": "1"},
    )
    return replace(base, **changes)


def a_policy(*, name: str = "operation-service", namespace: str = "ce-hub", uid: str = POLICY_UID, **changes: Any) -> model.Policy:
    """A policy on an existing HTTP Deployment: thresholds, one objective, default traffic, no security, no network rules."""
    base = model.Policy(
        identity=model.Identity(model.PolicyKey(namespace, name), uid, 1),
        class_ref=model.ClassRef("production", 1),
        mode=model.Mode.ENFORCE,
        suspended=False,
        workload=a_workload(name=name, selector={"app": name}, container=name),
        service=a_service(name=name, fqdn=f"{name}.{namespace}.svc.cluster.local"),
        sli=an_sli(),
        thresholds=thresholds(),
        objectives=(an_objective(),),
        metrics=a_metrics_source(),
        traffic=traffic(),
        security=security(),
        network=None,
        observability=observability(),
    )
    return replace(base, **changes)


def a_full_policy(*, name: str = "operation-service", namespace: str = "ce-hub", uid: str = POLICY_UID, **changes: Any) -> model.Policy:
    """Every capability at once: owned Deployment and Service, canary routes through a gateway, STRICT, allow and deny, network rules."""
    base = a_policy(name=name, namespace=namespace, uid=uid)
    full = replace(
        base,
        workload=replace(base.workload, owned=_full_deployment()),
        service=replace(base.service, owned=True),
        scaling=_full_scaling(),
        disruption_budget=a_budget(),
        maintenance=(a_window(), a_window(name="upgrade", start=datetime(2027, 1, 9, 22, tzinfo=UTC), every=None)),
        objectives=(
            an_objective(),
            an_objective(name="fast", target=Decimal("0.99"), threshold=timedelta(milliseconds=500)),
        ),
        traffic=_full_traffic(),
        security=security(
            mtls=model.Mtls.STRICT,
            allow=(
                access_rule(
                    principals=("cluster.local/ns/istio-system/sa/istio-ingressgateway",), methods=("GET", "POST"), paths=("/api/*",)
                ),
                access_rule(namespaces=(namespace,)),
            ),
            deny=(access_rule(paths=("/admin/*",)),),
            default_deny=True,
        ),
        observability=observability(
            scrape=model.Scrape("/metrics", timedelta(seconds=15), True),
            dashboard=True,
            tracing=model.Tracing(Decimal("0.1"), "zipkin"),
            access_logs=model.AccessLogs("envoy", failed_only=True),
        ),
        network=network(
            ingress=(
                model.NetworkRule(
                    (a_peer(namespace_labels={"name": "ingress-system"}, pod_labels=None),), (model.NetworkPort(8080, "TCP"),)
                ),
            ),
            egress=(model.NetworkRule((a_peer(pod_labels={"app": "postgresql"}),), (model.NetworkPort(5432, "TCP"),)),),
        ),
    )
    return replace(full, **changes)


def _full_deployment() -> model.OwnedDeployment:
    return an_owned_deployment(liveness=a_probe(), readiness=a_probe("/ready"), env={"LOG_LEVEL": "info"})


def _full_scaling() -> model.Scaling:
    steps = (model.ScalingStep("Percent", 100, timedelta(seconds=30)), model.ScalingStep("Pods", 4, timedelta(seconds=15)))
    up, down = model.ScalingRules(timedelta(0), "Max", steps), model.ScalingRules(timedelta(minutes=2), None, ())
    return a_scaling(memory_percent=80, up=up, down=down)


def _full_traffic() -> model.Traffic:
    stable, canary = model.Subset("stable", {"version": "stable"}), model.Subset("canary", {"version": "canary"})
    is_canary = a_match(path=None, headers=(("x-canary", model.StringMatch(model.MatchKind.EXACT, "true")),))
    common: dict[str, Any] = {"timeout": timedelta(seconds=30), "retries": retries()}
    return traffic(
        hosts=("api.ce-hub.com",),
        gateways=(model.GatewayRef("istio-system", "public"),),
        routes=(
            a_route(name="canary", matches=(is_canary,), destinations=(model.Destination("canary", 100),), **common),
            a_route(
                name="api",
                matches=(a_match(),),
                rewrite_prefix="/",
                fault=model.Fault(timedelta(milliseconds=100), Decimal("0.001"), 503, Decimal("0.0001")),
                destinations=(model.Destination("stable", 90), model.Destination("canary", 10)),
                **common,
            ),
            a_route(destinations=(model.Destination("stable", 100),), **common),
        ),
        subsets=(stable, canary),
        load_balancer=a_load_balancer(warmup=timedelta(seconds=60), locality=model.LocalityBalancing(True, {"eu": "us"}, {})),
        connection_pool=a_connection_pool(),
        circuit_breaker=a_circuit_breaker(),
        proxy=_full_proxy(),
    )


def _full_proxy() -> model.Proxy:
    login = model.StringMatch(model.MatchKind.EXACT, "/login")
    return a_proxy(
        rate_limits=(
            a_rate_limit(requests=100),
            a_rate_limit(name="login", path=login, method="POST", requests=5, clients=(None,)),
            a_rate_limit(name="search", path=model.StringMatch(model.MatchKind.PREFIX, "/search"), clients=("x-api-key",)),
        ),
        global_limits=model.GlobalRateLimits(
            (
                a_rate_limit(requests=1000, per=timedelta(hours=1)),
                a_rate_limit(name="login", path=login, method="POST", requests=5, clients=(None,)),
                a_rate_limit(name="search", path=model.StringMatch(model.MatchKind.PREFIX, "/search"), clients=("x-api-key",)),
            ),
            a_rate_limit_service(),
        ),
        concurrency=model.Concurrency(50, adaptive=False),
        response_headers=model.ResponseHeaders(True, True, True, timedelta(days=365)),
        compress_from=1000,
    )
