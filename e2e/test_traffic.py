"""examples/traffic on the real cluster: what the callers' proxies do with requests, shown by requests.

Each story is about one policy and goes on beside the others; its proofs follow one another, because they make the same pods slow or fail.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest

from e2e import examples
from e2e.asking import Answer, Request, ask, ask_gateway, call
from e2e.cluster import Cluster
from e2e.policies import API_VERSION
from e2e.waiting import eventually, throughout
from lab import backend_control, load, mesh, prometheus
from lab.load import Load, Target
from perfpolicy.promql import names

NAMESPACE = "traffic"
POLICIES = ("catalog", "ledger", "orders", "payments", "shop", "stock")
HOST = "shop.traffic.example.com"
Proof = Callable[[Cluster], object]
# The first test waits for all.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def traffic(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/traffic, applied with kubectl, and an operator for its namespace; every policy Ready."""
    with examples.applied(real, NAMESPACE, tmp_path_factory.mktemp("operator") / "operator.log"):
        prepare(real)
        yield real


def prepare(real: Cluster) -> None:
    """A caller, short clocks, and every policy Ready."""
    real.apply(load.caller(NAMESPACE))
    # Prometheus of the lab looks every 5 s, so that rules need not wait for half a minute.
    metrics = {"spec": {"metrics": {"scrapeInterval": "5s", "ruleInterval": "5s"}}}
    real.kubectl("patch", "performanceclass", NAMESPACE, "--type=merge", "-p", json.dumps(metrics))
    examples.await_ready(real, NAMESPACE, POLICIES, seconds=90)


def a_request(service: str, path: str, method: str = "GET", **headers: str) -> Request:
    """_ in a header's name is -."""
    return Request(f"http://{service}.{NAMESPACE}{path}", method, {name.replace("_", "-"): value for name, value in headers.items()})


def asked(cluster: Cluster, *requests: Request, times: int = 1, at_once: bool = False) -> list[Answer]:
    """Answers to requests from the pod with a sidecar, in another namespace than the services'."""
    return ask(cluster.lab, "mesh", requests * times, at_once=at_once)


@contextmanager
def faults(cluster: Cluster, selector: str, **faults: float | bool) -> Iterator[None]:
    """Pods that are slow or fail, for a `with` block."""
    backend_control.set_fault(cluster.lab, NAMESPACE, selector, **faults)
    try:
        yield
    finally:
        backend_control.clear_faults(cluster.lab, NAMESPACE, selector)


def change_traffic(cluster: Cluster, policy: str, **fields: object) -> None:
    """Change some fields of spec.traffic of a policy."""
    patch = json.dumps({"spec": {"traffic": fields}})
    cluster.kubectl("patch", "pp", policy, "-n", NAMESPACE, "--type=merge", "-p", patch)


def is_share(count: int, of: int, share: float) -> bool:
    """Within four standard deviations: wrong once in 16,000 times."""
    return abs(count - of * share) <= 4 * sqrt(of * share * (1 - share))


# --- routes.yaml: shop


def conditions_choose_the_route(cluster: Cluster) -> None:
    expected = [
        (a_request("shop", "/status"), "exact"),
        (a_request("shop", "/status/x"), "rest"),
        (a_request("shop", "/items/7"), "regex"),
        (a_request("shop", "/items/7x"), "rest"),
        (a_request("shop", "/search?page=2"), "all-must-hold"),
        (a_request("shop", "/search?page=two"), "rest"),
        (a_request("shop", "/search?page=2", "POST"), "rest"),
        (a_request("shop", "/search", x_page="p2"), "all-must-hold"),
        (a_request("shop", "/search", x_page="2"), "rest"),
        (a_request("shop", "/"), "rest"),
    ]

    def check() -> None:
        answers = asked(cluster, *(request for request, _ in expected))
        assert [(answer.status, answer.headers.get("x-route")) for answer in answers] == [(200, route) for _, route in expected]
        # The same routes behind the gateway.
        url = mesh.environment(cluster.lab)["PERFPOLICY_LAB_INGRESS_URL"]
        assert ask_gateway(url, HOST, "/items/7").headers.get("x-route") == "regex"
        assert ask_gateway(url, f"not.{HOST}", "/items/7").status == 404

    eventually(check)


def paths_and_headers_are_changed(cluster: Cluster) -> object:
    requests = a_request("shop", "/v1/items/7"), a_request("shop", "/old?a=b"), a_request("shop", "/edited", x_team="x", x_debug="y")
    rewritten, moved, edited = asked(cluster, *requests)
    assert json.loads(rewritten.body)["path"] == "/items/7"
    assert (moved.status, moved.headers["location"]) == (308, f"http://shop.{NAMESPACE}/new?a=b")
    arrived = json.loads(edited.body)["headers"]
    assert (arrived["x-team"], "x-debug" in arrived) == ("shop", False)
    assert (edited.headers["x-served-by"], "x-version" in edited.headers) == ("the shop", False)
    return moved.headers["location"]


def a_browser_is_told_which_origins_may_call(cluster: Cluster) -> object:
    preflight = {"access_control_request_method": "PUT", "access_control_request_headers": "x-page"}
    ours, theirs = "https://www.example.com", "https://elsewhere.example.com"
    allowed, refused, got = asked(
        cluster,
        a_request("shop", "/web", "OPTIONS", origin=ours, **preflight),
        a_request("shop", "/web", "OPTIONS", origin=theirs, **preflight),
        a_request("shop", "/web", origin=ours),
    )
    told = {name: value for name, value in allowed.headers.items() if name.startswith("access-control")}
    assert (allowed.status, told) == (
        200,
        {
            "access-control-allow-origin": ours,
            "access-control-allow-methods": "GET,PUT",
            "access-control-allow-headers": "x-page",
            "access-control-max-age": "600",
        },
    )
    assert "x-pod" not in allowed.headers, "answered by the proxy"
    assert "access-control-allow-origin" not in refused.headers
    assert (got.status, got.headers["access-control-allow-origin"]) == (200, ours)
    return told


def the_canary_answers_those_who_ask_and_a_tenth_of_the_others(cluster: Cluster) -> object:
    times = 200
    chosen = {answer.headers["x-version"] for answer in asked(cluster, a_request("shop", "/", x_canary="true"), times=10)}
    assert chosen == {"next"}
    versions = Counter(answer.headers["x-version"] for answer in asked(cluster, a_request("shop", "/checkout"), times=times))
    assert set(versions) == {"stable", "next"}
    assert is_share(versions["next"], times, 0.1), versions
    return dict(versions)


def copies_arrive_at_the_mirror(cluster: Cluster) -> object:
    times, path = 20, f"/mirrored/{time.monotonic_ns()}"
    answers = asked(cluster, a_request("shop", path), times=times)
    assert Counter(answer.headers["x-version"] for answer in answers) == {"stable": times}

    def check() -> object:
        copies = logged(cluster, NAMESPACE, "shop-next", path)
        assert len(copies) == times
        return {copy["authority"] for copy in copies}

    return eventually(check)


def logged(cluster: Cluster, namespace: str, deployment: str, path: str) -> list[dict[str, Any]]:
    """What the proxy of a pod wrote about requests with this path."""
    log = cluster.kubectl("logs", "-n", namespace, f"deployment/{deployment}", "-c", "istio-proxy", "--since=2m")
    return [json.loads(line) for line in log.splitlines() if f'"{path}"' in line]


def of_two_policies_with_one_host_the_older_wins(cluster: Cluster) -> object:
    """The same host and path; and the younger writes nothing."""
    spec = {
        "className": NAMESPACE,
        "workload": {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop-next"}},
        "service": {"port": 80},
        "traffic": {"hosts": [HOST], "gateways": [{"namespace": mesh.SYSTEM, "name": mesh.GATEWAY}]},
    }
    cluster.apply(
        {"apiVersion": API_VERSION, "kind": "PerformancePolicy", "metadata": {"name": "copy", "namespace": NAMESPACE}, "spec": spec}
    )
    eventually(partial(is_refused, cluster, "copy", "Conflicted"))
    assert cluster.names("virtualservices,services", NAMESPACE, "perfpolicy.io/policy=copy") == set()
    url = mesh.environment(cluster.lab)["PERFPOLICY_LAB_INGRESS_URL"]
    assert ask_gateway(url, HOST, "/").headers.get("x-version") == "stable"
    message = condition(cluster, "copy", "Accepted")["message"]
    assert HOST in message
    assert f"{NAMESPACE}/shop" in message
    return message


def condition(cluster: Cluster, policy: str, kind: str) -> Mapping[str, str]:
    """A whole condition."""
    found = cluster.get("pp", policy, NAMESPACE) or {}
    return next(each for each in found["status"]["conditions"] if each["type"] == kind)


def is_refused(cluster: Cluster, policy: str, reason: str) -> None:
    """The policy is not accepted."""
    assert cluster.condition(policy, NAMESPACE, "Accepted") == ("False", reason)


def a_new_pod_is_warmed_up(cluster: Cluster) -> object:
    """Its share grows over 30 s from a tenth of the other's, which is older: without a warm-up both would have half."""
    (old,) = backend_control.pod_addresses(cluster.lab, NAMESPACE, "app=shop,version=stable")
    times = 100
    cluster.kubectl("scale", "deployment", "shop", "-n", NAMESPACE, "--replicas=2")

    def seen() -> Counter[str]:
        pods = Counter(answer.headers["x-pod"] for answer in asked(cluster, a_request("shop", "/"), times=times))
        assert len(pods) == 2, pods
        return pods

    pods = eventually(seen, seconds=60)
    new = times - pods[old]
    assert new <= 0.35 * times, pods
    return f"{new} of {times}"


# --- calls.yaml: orders


def a_slow_call_ends_at_the_timeout(cluster: Cluster) -> object:
    with faults(cluster, "app=orders", latency_ms=4000):
        (answer,) = asked(cluster, a_request("orders", "/reports"))
    assert answer.status == 504, answer
    assert 900 <= answer.milliseconds < 3000, answer.milliseconds
    return f"504 after {answer.milliseconds:.0f} ms"


def a_call_that_fails_twice_is_answered_where_it_is_tried_again(cluster: Cluster) -> None:
    for path, status, left in (("/", 200, 0), ("/reports", 500, 1)):
        with faults(cluster, "app=orders", fail_first_n=2, error_code=500):
            (answer,) = asked(cluster, a_request("orders", path))
            (now,) = backend_control.read_faults(cluster.lab, NAMESPACE, "app=orders").values()
        assert (answer.status, now["fail_first_n"]) == (status, left)


def some_calls_are_held_back_and_some_fail_on_purpose(cluster: Cluster) -> object:
    times, path = 200, f"/tested?{time.monotonic_ns()}"
    answers = asked(cluster, a_request("orders", path), times=times, at_once=True)
    aborted = [answer for answer in answers if answer.status == 503]
    assert {answer.body for answer in aborted} == {"fault filter abort"}
    assert Counter(answer.status for answer in answers) == {200: times - len(aborted), 503: len(aborted)}
    assert is_share(len(aborted), times, 0.1), len(aborted)

    def held_back() -> int:
        # The proxy's own word: on a busy machine a call may take long that it did not hold back.
        entries = logged(cluster, load.NAMESPACE, "k6", path)
        assert len(entries) == times
        held = [entry["duration"] for entry in entries if "DI" in (entry["response_flags"] or "").split(",")]
        # A busy Envoy's clock is that of its last turn: its 1500 ms may be some less.
        assert min(held, default=0) >= 1200, held
        return len(held)

    delayed = eventually(held_back)
    assert is_share(delayed, times, 0.2), delayed
    return f"{delayed} of {times} held back, {len(aborted)} aborted"


# --- balancing.yaml: catalog


LB_POLICIES = {"ConsistentHash": "RING_HASH", "RoundRobin": "ROUND_ROBIN", "LeastRequest": "LEAST_REQUEST", "Random": "RANDOM"}
"""What Envoy calls them."""


def balance(cluster: Cluster, algorithm: str, hashed: Mapping[str, str] | None = None) -> None:
    """Change the algorithm, and wait until the callers' proxy has been told."""
    balancer = {"algorithm": algorithm, "consistentHash": {"name": None, **hashed} if hashed else None}
    change_traffic(cluster, "catalog", loadBalancer=balancer)

    def told() -> None:
        request = ("pilot-agent", "request", "GET", "config_dump?resource=dynamic_active_clusters&name_regex=.*catalog.*")
        dump = json.loads(cluster.kubectl("exec", "-n", load.NAMESPACE, "deployment/k6", "-c", "istio-proxy", "--", *request))
        found = {each["cluster"]["name"]: each["cluster"].get("lb_policy", "ROUND_ROBIN") for each in dump["configs"]}
        assert found[f"outbound|80||catalog.{NAMESPACE}.svc.cluster.local"] == LB_POLICIES[algorithm], found

    eventually(told)


def three_pods(cluster: Cluster) -> list[str]:
    """Names of the pods that are balanced between."""
    found = sorted(backend_control.pod_addresses(cluster.lab, NAMESPACE, "app=catalog"))
    assert len(found) == 3, found
    return found


def equal_values_reach_one_pod(cluster: Cluster, header: str) -> object:
    """Twenty users ask twice."""
    users = [f"user-{number}" for number in range(20)]
    value = "session={}" if header == "cookie" else "{}"

    def check() -> Counter[str]:
        requests = [a_request("catalog", "/", **{header: value.format(user)}) for user in users]
        answers = asked(cluster, *requests, times=2)
        pods = [answer.headers.get("x-pod", "") for answer in answers]
        assert pods[:20] == pods[20:], pods
        assert len(set(pods)) > 1, pods
        return Counter(pods[:20])

    return sorted(eventually(check).values())


def a_header_keeps_users_on_their_pod(cluster: Cluster) -> object:
    return equal_values_reach_one_pod(cluster, "x_user")


def a_cookie_keeps_browsers_on_their_pod(cluster: Cluster) -> object:
    balance(cluster, "ConsistentHash", {"type": "Cookie", "name": "session"})
    seen = equal_values_reach_one_pod(cluster, "cookie")
    first, *others = asked(cluster, a_request("catalog", "/"), times=8)
    assert first.headers["set-cookie"].startswith("session="), "handed out to those who have none"
    assert {answer.headers["x-pod"] for answer in others} == {first.headers["x-pod"]}
    return seen


def an_address_keeps_callers_on_their_pod(cluster: Cluster) -> None:
    balance(cluster, "ConsistentHash", {"type": "SourceIP"})

    def check() -> None:
        answers = asked(cluster, a_request("catalog", "/"), times=20)
        assert len({answer.headers.get("x-pod") for answer in answers}) == 1
        assert all("set-cookie" not in answer.headers for answer in answers)

    eventually(check)


def in_turn_a_slow_pod_gets_its_third(cluster: Cluster) -> object:
    balance(cluster, "RoundRobin")
    slow, *_ = three_pods(cluster)

    def check() -> list[str]:
        pods = [answer.headers.get("x-pod", "") for answer in asked(cluster, a_request("catalog", "/"), times=30)]
        # Any three in a row: counts alone would come out even by chance, too, when asked often enough.
        assert all(len(set(pods[first : first + 3])) == 3 for first in range(28)), pods
        return pods

    with faults(cluster, only(cluster, slow), latency_ms=100):
        pods = eventually(check)
    return f"{pods.count(slow)} of 30"


def the_less_busy_get_what_a_slow_pod_does_not(cluster: Cluster) -> object:
    """75 requests/s, of which the slow one could answer one at a time: it gets what comes while two random looks both see it."""
    balance(cluster, "LeastRequest")
    slow, *fast = three_pods(cluster)
    asking = Load(75, 2, [Target(f"http://catalog.{NAMESPACE}/")], count_header=("X-Pod", (slow, *fast)))
    with faults(cluster, only(cluster, slow), latency_ms=1000):
        result = load.run(cluster.lab, asking)
    assert result.served >= 100, result
    assert result.by_header[slow] <= 0.25 * result.served, result.by_header
    assert min(result.by_header[pod] for pod in fast) >= 0.3 * result.served, result.by_header
    return f"{result.by_header[slow]} of {result.served}"


def at_random_neighbours_are_equal_by_chance(cluster: Cluster) -> object:
    balance(cluster, "Random")
    times = 150
    pods = [answer.headers["x-pod"] for answer in asked(cluster, a_request("catalog", "/"), times=times)]
    assert all(is_share(pods.count(pod), times, 1 / 3) for pod in three_pods(cluster)), Counter(pods)
    repeated = sum(one == next_ for one, next_ in pairwise(pods))
    assert is_share(repeated, times - 1, 1 / 3), repeated
    return f"{sorted(Counter(pods).values())}, {repeated} times the same pod twice in a row"


def no_more_pods_are_left_out_than_may_be(cluster: Cluster) -> object:
    """Two of three pods fail: one may be left out, then both; but where too few would be left, all are asked."""
    good, *failing = three_pods(cluster)
    selector = f"e2e in ({','.join(only(cluster, pod).removeprefix('e2e=') for pod in failing)})"
    balance(cluster, "RoundRobin")
    seen = list[int]()

    def pods() -> int:
        found = {each.headers.get("x-pod") for each in asked(cluster, a_request("catalog", "/"), times=30)}
        assert good in found
        return len(found)

    def one_is_left_out() -> bool:
        return pods() == 2

    def come_to(expected: int, **breaker: str) -> None:
        strict = {"consecutiveErrors": 3, "interval": "1s", "baseEjection": "60s"}
        change_traffic(cluster, "catalog", circuitBreaker={**strict, **breaker})

        def check() -> None:
            found = pods()
            assert found == expected, f"{found} pods are asked, not {expected}: {breaker}"

        eventually(check)
        seen.append(expected)

    with faults(cluster, selector, error_ratio=1, error_code=500):
        come_to(2, maxEjected="34%")
        # And it stays so, longer than Envoy waits between changes of health.
        throughout(one_is_left_out, seconds=2)
        come_to(1, maxEjected="100%")
        come_to(3, maxEjected="100%", minHealth="60%")
    return f"{seen} pods asked"


def only(cluster: Cluster, pod: str) -> str:
    """A selector for one pod."""
    cluster.kubectl("label", "pod", pod, "-n", NAMESPACE, "--overwrite", f"e2e={pod}")
    return f"e2e={pod}"


# --- resilience.yaml: stock, asked by the pod of shop-next, which is in eu


def stock_answers(cluster: Cluster, times: int) -> list[tuple[int, str]]:
    """Status and region of the pod that answered the pod of shop-next."""
    answers = asked(cluster, a_request("shop", "/stock", x_canary="true"), times=times)
    return [(answer.status, answer.headers.get("x-upstream-version", "")) for answer in answers]


def stock_is(cluster: Cluster, region: str) -> None:
    """All of ten requests were answered there."""
    assert Counter(stock_answers(cluster, 10)) == {(200, region): 10}


def callers_ask_their_own_region_while_it_is_ready(cluster: Cluster) -> None:
    eventually(partial(stock_is, cluster, "eu"))
    with faults(cluster, "app=stock,version=eu", not_ready=True):
        eventually(partial(stock_is, cluster, "us"))
    eventually(partial(stock_is, cluster, "eu"))


def a_failing_pod_is_left_out_and_comes_back_after_its_time(cluster: Cluster) -> object:
    # Within a second of a change of some pod's health (Envoy's update_merge_window) the next one waits for that second's end: until then
    # the pod, though ejected, is asked. Forty answers take 0.3 s.
    seen: list[tuple[int, str]] = []
    with faults(cluster, "app=stock,version=eu", error_ratio=1, error_code=500):
        started = time.monotonic()
        while (200, "us") not in seen:
            assert time.monotonic() - started < 10, seen
            seen += stock_answers(cluster, 40)
    failures = seen.count((500, "eu"))
    assert failures >= 3, seen
    assert seen == [(500, "eu")] * failures + [(200, "us")] * (len(seen) - failures), "left out at once for all"
    region = "us"
    while region == "us":
        (status, region), *_ = stock_answers(cluster, 1)
        assert status == 200
        assert time.monotonic() - started < 60, "still left out"
    back = time.monotonic() - started
    assert back >= 3
    eventually(partial(stock_is, cluster, "eu"))
    return f"{failures} failures, back after {back:.1f} s"


def what_exceeds_the_pool_is_answered_503(cluster: Cluster) -> object:
    times, path = 30, f"/overflow-{time.monotonic_ns()}"
    with faults(cluster, "app=stock", latency_ms=1500):
        answers = asked(cluster, a_request("stock", path), times=times, at_once=True)
    found = Counter(answer.status for answer in answers)
    # Four connections and two that wait; each of the proxy's threads may have one more of each.
    assert 1 <= found[200] <= 12, found
    assert found[503] == times - found[200], found

    def flagged() -> None:
        entries = logged(cluster, load.NAMESPACE, "k6", path)
        assert Counter(entry["response_flags"] for entry in entries if entry["response_code"] == 503) == {"UO": found[503]}

    eventually(flagged)
    return dict(found)


def requests_are_shared_out_between_regions(cluster: Cluster) -> object:
    times, shares = 200, [{"locality": "eu/*", "weight": 80}, {"locality": "us/*", "weight": 20}]
    change_traffic(cluster, "stock", loadBalancer={"locality": {"failover": None, "distribute": [{"from": "eu/*", "to": shares}]}})

    def check() -> Counter[tuple[int, str]]:
        found = Counter(stock_answers(cluster, times))
        assert found[200, "eu"] + found[200, "us"] == times, found
        assert is_share(found[200, "us"], times, 0.2), found
        return found

    found = eventually(check)
    return f"eu {found[200, 'eu']}, us {found[200, 'us']}"


# --- grpc.yaml: payments

PAYMENTS = f"payments.{NAMESPACE}:9000"
CHECK, LIST = "grpc.health.v1.Health/Check", "grpc.health.v1.Health/List"


def grpc_methods_are_allowed_to_those_who_may_call_them(cluster: Cluster) -> object:
    """Two callers, and a method for each: what one may call is refused to the other."""
    cluster.lab.wait_available(NAMESPACE, "k6", seconds=90)

    def check() -> object:
        ours, other = (call(cluster.lab, PAYMENTS, [CHECK, LIST], namespace) for namespace in (load.NAMESPACE, NAMESPACE))
        (allowed, refused), (denied, listed) = ours, other
        assert (allowed.code, allowed.message["status"], allowed.headers["x-service"]) == (0, "SERVING", ["payments"])
        assert (listed.code, listed.headers["x-service"]) == (0, ["payments"])
        assert {(answer.code, answer.error) for answer in (refused, denied)} == {(7, "RBAC: access denied")}
        return allowed.message, refused.error

    return eventually(check)


def grpc_calls_are_tried_again_by_their_status(cluster: Cluster) -> None:
    """Unavailable three times, which Istio's own two retries would not get over; Internal not at all."""
    for http, fails, expected, left in ((503, 3, 0, 0), (500, 3, 13, 2)):
        with faults(cluster, "app=payments", fail_first_n=fails, error_code=http):
            (answer,) = call(cluster.lab, PAYMENTS, [CHECK])
            (now,) = backend_control.read_faults(cluster.lab, NAMESPACE, "app=payments").values()
        assert (answer.code, now["fail_first_n"]) == (expected, left), answer


def failed_grpc_calls_are_errors_of_the_policy(cluster: Cluster) -> object:
    """Internal (13), each of them a 200 of HTTP."""
    failed = (
        'istio_requests_total{destination_service_name="payments",reporter="destination",grpc_response_status="13",response_code="200"}'
    )

    def check() -> object:
        with faults(cluster, "app=payments", error_ratio=1, error_code=500):
            assert {answer.code for answer in call(cluster.lab, PAYMENTS, [CHECK] * 5)} == {13}
        errors = prometheus.query(cluster.lab, f'{names.ERRORS_STEP}{{policy="payments",policy_namespace="{NAMESPACE}"}} > 0')
        assert errors, "no errors recorded"
        assert prometheus.query(cluster.lab, failed)
        return errors[0]["value"][1]

    return eventually(check, seconds=60)


# --- tcp.yaml: ledger

LEDGER = f"ledger.{NAMESPACE}:5432"


def tcp_connections_are_encrypted_and_allowed_by_identity(cluster: Cluster) -> object:
    """HTTP as the lab's own protocol over it: what the mesh sees is a connection."""

    def check() -> object:
        ours, through_shop = asked(cluster, Request(f"http://{LEDGER}/"), a_request("shop", "/ledger", x_canary="true"))
        (plain,) = ask(cluster.lab, "outside", [Request(f"http://{LEDGER}/")])
        assert (ours.status, ours.headers["x-service"]) == (200, "ledger")
        assert "x-envoy-upstream-service-time" not in ours.headers, "nobody read the request"
        assert (through_shop.status, plain.status) == (502, 0), (through_shop.body, plain.error)
        # Its bytes were never read. Where they are and the caller is not allowed, the connection ends as that of shop does: EOF.
        assert "reset" in plain.error, plain.error
        return through_shop.body, plain.error

    return eventually(check)


def connections_beyond_the_pool_are_closed(cluster: Cluster) -> object:
    with faults(cluster, "app=ledger", latency_ms=1500):
        found = Counter(answer.status for answer in asked(cluster, Request(f"http://{LEDGER}/"), times=12, at_once=True))
    # Two connections; each of the proxy's threads may have one.
    assert 2 <= found[200] <= 4, found
    assert found[0] == 12 - found[200], found
    return dict(found)


def what_is_about_requests_is_refused_by_name(cluster: Cluster) -> object:
    wanted = {
        "traffic": {
            "timeout": "3s",
            "routes": [{"name": "all"}],
            "connectionPool": {"maxRequests": 7},
            "loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "Header", "name": "x-user"}},
        },
        "thresholds": {"errorRate": {"max": "1%"}},
    }
    cluster.kubectl("patch", "pp", "ledger", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": wanted}))
    eventually(partial(is_refused, cluster, "ledger", "Invalid"))
    message = condition(cluster, "ledger", "Accepted")["message"]
    for path in ("timeout", "routes", "connectionPool.maxRequests", "loadBalancer.consistentHash.type"):
        assert f"spec.traffic.{path}: " in message, message
    assert "spec.thresholds.errorRate" in message
    # What was accepted before still holds.
    assert asked(cluster, Request(f"http://{LEDGER}/"))[0].status == 200
    return message


def istioctl_has_nothing_to_say(cluster: Cluster) -> None:
    assert mesh.complaints(cluster.lab, NAMESPACE) == []


STORIES: tuple[tuple[Proof, ...], ...] = (
    (
        conditions_choose_the_route,
        paths_and_headers_are_changed,
        a_browser_is_told_which_origins_may_call,
        the_canary_answers_those_who_ask_and_a_tenth_of_the_others,
        copies_arrive_at_the_mirror,
        of_two_policies_with_one_host_the_older_wins,
        istioctl_has_nothing_to_say,
        a_new_pod_is_warmed_up,
    ),
    (
        a_slow_call_ends_at_the_timeout,
        a_call_that_fails_twice_is_answered_where_it_is_tried_again,
        some_calls_are_held_back_and_some_fail_on_purpose,
    ),
    (
        a_header_keeps_users_on_their_pod,
        a_cookie_keeps_browsers_on_their_pod,
        an_address_keeps_callers_on_their_pod,
        in_turn_a_slow_pod_gets_its_third,
        the_less_busy_get_what_a_slow_pod_does_not,
        at_random_neighbours_are_equal_by_chance,
        no_more_pods_are_left_out_than_may_be,
    ),
    (
        callers_ask_their_own_region_while_it_is_ready,
        a_failing_pod_is_left_out_and_comes_back_after_its_time,
        what_exceeds_the_pool_is_answered_503,
        requests_are_shared_out_between_regions,
    ),
    (
        grpc_methods_are_allowed_to_those_who_may_call_them,
        grpc_calls_are_tried_again_by_their_status,
        failed_grpc_calls_are_errors_of_the_policy,
    ),
    (
        tcp_connections_are_encrypted_and_allowed_by_identity,
        connections_beyond_the_pool_are_closed,
        what_is_about_requests_is_refused_by_name,
    ),
)


@pytest.fixture(scope="module")
def outcomes(traffic: Cluster) -> Mapping[Proof, "Future[object]"]:
    """What each proof saw, or why it did not hold. All are done: pytest changes the environment from test to test, and threads read it."""
    found: dict[Proof, Future[object]] = {proof: Future() for story in STORIES for proof in story}

    def tell(story: tuple[Proof, ...]) -> None:
        for proof in story:
            try:
                found[proof].set_result(proof(traffic))
            except BaseException as problem:  # noqa: BLE001 - raised in the test that looks at it
                found[proof].set_exception(problem)

    with ThreadPoolExecutor(len(STORIES)) as pool:
        for story in STORIES:
            pool.submit(tell, story)
    return found


@pytest.mark.parametrize("proof", [proof for story in STORIES for proof in story], ids=lambda proof: str(proof.__name__))
def test_it_works(outcomes: Mapping[Proof, "Future[Any]"], proof: Proof, capsys: pytest.CaptureFixture[str]) -> None:
    seen = outcomes[proof].result(timeout=0)
    if seen is not None:
        with capsys.disabled():
            print(f"\n{proof.__name__}: {seen}", end="")
