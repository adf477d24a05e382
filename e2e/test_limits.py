"""examples/limits on the real cluster: what the pods' own proxies let through, refuse and add, shown by requests from inside the mesh."""

from collections import Counter
from collections.abc import Iterator
from math import inf

import pytest

from e2e import examples
from e2e.asking import Answer, Request, ask
from e2e.cluster import Cluster, istioctl_is_content
from e2e.conftest import ROOT
from e2e.proofs import statuses
from e2e.waiting import eventually
from lab import backend_control, load, prometheus
from lab.lab import Lab
from lab.load import Load, Result, Target
from perfpolicy import yaml_text

NAMESPACE = "limits"
POLICIES = ("orders", "reports", "pages", "carts")
COUNTING = "rate-limit"
"""Namespace of the rate limit service."""
WORKERS, LATENCY_MS = 4, 100
CAPACITY = WORKERS * 1000 / LATENCY_MS
"""Requests/s the backend can work on: by waiting, not by computing, so that it is the same on a busy machine."""
OVERLOAD = Load(3 * CAPACITY, 5, [Target(f"http://reports.{NAMESPACE}/report")], timeout_seconds=1)


def measured_class(**changes: object) -> dict[str, object]:
    """The class of the examples, measured by the lab's Prometheus; `changes` to how it counts."""
    cls = yaml_text.load((ROOT / "examples" / NAMESPACE / "class.yaml").read_text())
    cls["spec"]["rateLimitService"].update(changes)
    cls["spec"]["metrics"] = {"address": prometheus.url(Lab("real", "real")), "scrapeInterval": "5s", "ruleInterval": "5s"}
    found: dict[str, object] = cls
    return found


@pytest.fixture(scope="module")
def limits(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/limits, applied with kubectl, and an operator for its namespace; every policy Ready."""
    with examples.applied(real, NAMESPACE, tmp_path_factory.mktemp("operator") / "operator.log", COUNTING):
        real.apply(measured_class())
        examples.await_ready(real, NAMESPACE, POLICIES)
        yield real


def asked(cluster: Cluster, policy: str, path: str, times: int = 1, method: str = "GET", **headers: str) -> list[Answer]:
    """Answers to equal requests from the pod with a sidecar; _ in a header's name is -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(cluster.lab, "mesh", [Request(f"http://{policy}.{NAMESPACE}{path}", method, named)] * times)


def test_the_request_after_the_limit_is_refused_and_told_when_to_come_back(limits: Cluster) -> None:
    *within, beyond = asked(limits, "orders", "/x", times=11, x_api_key="first")
    assert statuses(within) == " ".join(["200"] * 10)
    assert [answer.headers["x-ratelimit-remaining"] for answer in within] == [str(left) for left in reversed(range(10))]
    assert (beyond.status, beyond.headers["x-ratelimit-limit"], beyond.headers["x-ratelimit-remaining"]) == (429, "10", "0")
    # A token comes every 6 s; the slowest limit of the policy has one every 20 s.
    assert 1 <= int(beyond.headers["x-ratelimit-reset"]) <= 6
    assert beyond.headers["retry-after"] == "20"


def test_each_client_has_its_own_limit_and_those_without_a_name_share_one(limits: Cluster) -> None:
    assert asked(limits, "orders", "/x", times=12, x_api_key="second")[-1].status == 429
    assert asked(limits, "orders", "/x", x_api_key="third")[0].status == 200
    assert Counter(answer.status for answer in asked(limits, "orders", "/x", times=12))[429] >= 1
    assert asked(limits, "orders", "/x", x_api_key="fourth")[0].status == 200


def test_a_route_has_a_limit_of_its_own_beside_the_general_one(limits: Cluster) -> None:
    logins = [Request(f"http://orders.{NAMESPACE}/login?next=1", "POST", {"x-api-key": f"caller-{number}"}) for number in range(4)]
    tries = ask(limits.lab, "mesh", logins)
    assert statuses(tries) == "200 200 200 429"
    assert tries[-1].headers["x-ratelimit-limit"] == "3"
    # Another method, and another path, of the same address.
    assert asked(limits, "orders", "/login", x_api_key="caller-5")[0].status == 200
    assert asked(limits, "orders", "/logins", method="POST", x_api_key="caller-6")[0].status == 200


def test_two_pods_keep_one_limit_together(limits: Cluster) -> None:
    limits.lab.wait_available(COUNTING, "ratelimit")
    eventually(lambda: asked(limits, "carts", "/x", x_api_key="warm")[0].status == 200, seconds=60)
    answers = asked(limits, "carts", "/x", times=25, x_api_key="first")
    assert statuses(answers) == " ".join(["200"] * 20 + ["429"] * 5)
    assert len({answer.headers["x-pod"] for answer in answers[:20]}) == 2, "both pods answered"
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == [*map(str, reversed(range(20))), *["0"] * 5]
    assert answers[-1].headers["x-ratelimit-limit"] == "20, 20;w=86400"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 86400
    assert asked(limits, "carts", "/x", x_api_key="second")[0].status == 200


def test_while_nobody_counts_the_class_says_what_becomes_of_requests(limits: Cluster) -> None:
    limits.kubectl("scale", "deployment/redis", "-n", COUNTING, "--replicas=0")
    try:
        eventually(lambda: asked(limits, "carts", "/x", x_api_key="third")[0].status == 503, seconds=60)
        limits.apply(measured_class(failureMode="Open"))
        # Both pods, each told when it is.
        eventually(lambda: {answer.status for answer in asked(limits, "carts", "/x", times=21, x_api_key="third")} == {200}, seconds=60)
    finally:
        limits.kubectl("scale", "deployment/redis", "-n", COUNTING, "--replicas=1")
    eventually(lambda: asked(limits, "carts", "/x", times=21, x_api_key="fourth")[-1].status == 429, seconds=60)


def test_a_filter_that_the_proxies_refuse_is_told(limits: Cluster) -> None:
    """One that Envoy cannot read is refused with the whole listener: istiod knows, and says it to nobody."""
    own = limits.get("envoyfilter", "pages", NAMESPACE)
    assert own is not None
    broken = {
        "apiVersion": own["apiVersion"],
        "kind": "EnvoyFilter",
        "metadata": {"name": "broken", "namespace": NAMESPACE},
        "spec": {
            "workloadSelector": own["spec"]["workloadSelector"],
            "configPatches": [unreadable(own["spec"]["configPatches"][0]["match"])],
        },
    }
    limits.apply(broken)
    try:
        eventually(lambda: limits.condition("pages", NAMESPACE, "Programmed") == ("False", "Rejected"), seconds=90)
        assert limits.condition("orders", NAMESPACE, "Programmed") == ("True", "Programmed")
        assert asked(limits, "pages", "/x")[0].status == 200, "the proxies go on with what they had"
    finally:
        limits.delete("envoyfilter", "broken", NAMESPACE)
    eventually(lambda: limits.condition("pages", NAMESPACE, "Programmed") == ("True", "Programmed"), seconds=90)


def unreadable(place: object) -> dict[str, object]:
    """A patch with a regular expression that RE2 does not know."""
    kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    condition = {"name": ":path", "string_match": {"safe_regex": {"regex": "(?=a)"}}}
    limits = [{"actions": [{"header_value_match": {"descriptor_value": "x", "headers": [condition]}}]}]
    value = {"name": "broken", "typed_config": {"@type": kind, "stat_prefix": "broken", "rate_limits": limits}}
    return {"applyTo": "HTTP_FILTER", "match": place, "patch": {"operation": "INSERT_BEFORE", "value": value}}


def overload(cluster: Cluster) -> Result:
    """Three times what the backend can do, for 5 s, beginning with an empty line."""
    backend_control.clear_faults(cluster.lab, NAMESPACE, "app=reports")
    backend_control.set_fault(cluster.lab, NAMESPACE, "app=reports", workers=WORKERS, latency_ms=LATENCY_MS)
    try:
        return load.run(cluster.lab, OVERLOAD)
    finally:
        backend_control.clear_faults(cluster.lab, NAMESPACE, "app=reports")


def set_concurrency(cluster: Cluster, **concurrency: object) -> None:
    """Change spec.traffic.concurrency of `reports`, and wait until its pods' proxy has been told."""
    path = ROOT / "examples" / NAMESPACE / "concurrency.yaml"
    policy = yaml_text.load(path.read_text())
    policy["spec"]["traffic"]["concurrency"] = concurrency
    cluster.apply(policy)
    mode = concurrency.get("mode", "Fixed")

    def told() -> None:
        (pod,) = backend_control.pod_addresses(cluster.lab, NAMESPACE, "app=reports")
        dump = cluster.kubectl("exec", "-n", NAMESPACE, pod, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "config_dump")
        assert ("perfpolicy.concurrency" in dump) == (mode != "Disabled")
        assert ('"min_concurrency"' in dump) == (mode == "Fixed")

    eventually(told)


def test_under_overload_a_cap_keeps_answers_coming_in_time(limits: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Goodput (answers within 1 s) and p95 at three times the capacity: without a cap, with a fixed one, with an adaptive one."""
    found: dict[str, Result] = {}

    def compare() -> None:
        for mode in ("Disabled", "Fixed", "Adaptive"):
            set_concurrency(limits, **({"mode": "Disabled"} if mode == "Disabled" else {"mode": mode, "max": 8 if mode == "Fixed" else 40}))
            found[mode] = overload(limits)
        without = found["Disabled"]
        for mode in ("Fixed", "Adaptive"):
            capped = found[mode]
            assert capped.served >= 2 * without.served, f"{mode}: {capped.served} served, {without.served} without a cap"
            assert (capped.p95_ms or inf) <= (without.p95_ms or inf) / 2, f"{mode}: p95 {capped.p95_ms}, {without.p95_ms} without a cap"
            assert set(capped.statuses) <= {0, 200, 429}, capped.statuses
            assert capped.statuses[429] > 0

    eventually(compare, seconds=60)
    with capsys.disabled():
        for mode, result in found.items():
            print(f"\n{mode:9} served {result.served:4} of {result.sent}, p95 {result.p95_ms:6.0f} ms, {dict(result.statuses)}", end="")


def test_every_answer_carries_the_headers(limits: Cluster) -> None:
    (answer,) = asked(limits, "pages", "/x", x_request_id="7b1f0a52-4a0a-4a36-9e3c-0c1d2e3f4a5b")
    assert answer.headers["x-request-id"] == "7b1f0a52-4a0a-4a36-9e3c-0c1d2e3f4a5b"
    expected = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "strict-transport-security": "max-age=31536000; includeSubDomains",
    }
    assert expected.items() <= answer.headers.items()
    slow = slow_page(limits)
    assert 150 <= int(slow.headers["x-response-time"]) <= slow.milliseconds


def slow_page(cluster: Cluster) -> Answer:
    """One answer of `pages` that takes 150 ms."""
    backend_control.set_fault(cluster.lab, NAMESPACE, "app=pages", latency_ms=150)
    try:
        return asked(cluster, "pages", "/slow")[0]
    finally:
        backend_control.clear_faults(cluster.lab, NAMESPACE, "app=pages")


def test_long_answers_are_compressed_for_those_who_accept_it(limits: Cluster) -> None:
    # The backend's answer repeats the request's headers.
    long = "p" * 1200
    (accepted,) = asked(limits, "pages", "/x", accept_encoding="gzip", x_padding=long)
    assert accepted.headers.get("content-encoding") == "gzip"
    assert '"x-padding"' in accepted.body
    assert "content-encoding" not in asked(limits, "pages", "/x", x_padding=long)[0].headers
    assert "content-encoding" not in asked(limits, "pages", "/x", accept_encoding="gzip")[0].headers


def test_istioctl_has_nothing_to_say(limits: Cluster) -> None:
    eventually(lambda: istioctl_is_content(limits, NAMESPACE))
