"""Every proof of e2e/test_traffic.py fails when what it guards is broken. For the real lab, by hand: `make mutate`; CI runs the proofs.

A round breaks several things: an operator with these alterations (e2e/mutant.py) writes what it makes of examples/traffic, and the proofs
are asked. With the operator as it is they hold, before (make test) and after all rounds.
"""

import time
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from e2e import examples
from e2e import test_traffic as traffic
from e2e.cluster import Cluster
from e2e.mutant import CODE, Alteration, program
from e2e.test_traffic import NAMESPACE, Proof
from e2e.waiting import eventually
from e2e.world import operator
from lab import load
from lab.errors import CommandError
from perfpolicy import yaml_text

TRIES = 2
"""A proof that holds is asked again: proxies may not have been told yet."""
PATIENCE = 10
"""Seconds that proofs wait for what does not come."""
pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True, eq=False)
class Breakage:
    """What is altered, and the proof that must see it. `told`: Envoy's names of algorithms waited for instead of the right ones."""

    proof: Proof
    alteration: Alteration
    told: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.proof.__name__} | {self.alteration}"


def broken(proof: Proof, kind: str, name: str, path: str, value: Any = None, **told: str) -> Breakage:
    """One breakage."""
    return Breakage(proof, Alteration(kind, name, path, value), told)


SHOP, ENTRANCE, ORDERS = ("VirtualService", "shop"), ("VirtualService", "shop-gateway"), ("VirtualService", "orders")
CATALOG, STOCK, LEDGER = ("DestinationRule", "catalog"), ("DestinationRule", "stock"), ("DestinationRule", "ledger")
CALLED = ("AuthorizationPolicy", "payments-allow")
RECONCILER = "perfpolicy.reconcile.reconciler:Reconciler"
# Of one round none hides another: they differ in proofs and in fields.
ROUNDS: tuple[tuple[Breakage, ...], ...] = (
    (
        broken(traffic.conditions_choose_the_route, *SHOP, "queryParams"),
        broken(traffic.paths_and_headers_are_changed, *SHOP, "rewrite"),
        broken(traffic.a_browser_is_told_which_origins_may_call, *SHOP, "corsPolicy"),
        broken(traffic.copies_arrive_at_the_mirror, *SHOP, "mirror"),
        broken(traffic.of_two_policies_with_one_host_the_older_wins, CODE, RECONCILER, "_yield_to_elders"),
        broken(traffic.a_new_pod_is_warmed_up, "DestinationRule", "shop", "warmup"),
        broken(traffic.a_slow_call_ends_at_the_timeout, *ORDERS, "timeout"),
        broken(traffic.a_call_that_fails_twice_is_answered_where_it_is_tried_again, *ORDERS, "retries"),
        broken(traffic.some_calls_are_held_back_and_some_fail_on_purpose, *ORDERS, "fault.delay"),
        broken(traffic.a_header_keeps_users_on_their_pod, *CATALOG, "httpHeaderName", "x-other"),
        broken(traffic.a_cookie_keeps_browsers_on_their_pod, *CATALOG, "httpCookie.name", "other"),
        broken(traffic.in_turn_a_slow_pod_gets_its_third, *CATALOG, "simple", "RANDOM", RoundRobin="RANDOM"),
        broken(traffic.the_less_busy_get_what_a_slow_pod_does_not, *CATALOG, "simple", "RANDOM", LeastRequest="RANDOM"),
        broken(traffic.callers_ask_their_own_region_while_it_is_ready, *STOCK, "failover"),
        broken(traffic.what_exceeds_the_pool_is_answered_503, *STOCK, "connectionPool"),
        broken(traffic.requests_are_shared_out_between_regions, *STOCK, "distribute"),
        broken(traffic.grpc_methods_are_allowed_to_those_who_may_call_them, *CALLED, "to"),
        broken(traffic.grpc_calls_are_tried_again_by_their_status, "VirtualService", "payments", "retries"),
        broken(traffic.failed_grpc_calls_are_errors_of_the_policy, CODE, "perfpolicy.promql.istio", "_may_be_grpc", value=False),
        broken(traffic.tcp_connections_are_encrypted_and_allowed_by_identity, "AuthorizationPolicy", "ledger-allow", "from"),
        broken(traffic.connections_beyond_the_pool_are_closed, *LEDGER, "maxConnections"),
    ),
    (
        broken(traffic.conditions_choose_the_route, *ENTRANCE, "hosts", ["other.traffic.example.com"]),
        broken(traffic.paths_and_headers_are_changed, *SHOP, "redirectCode", 301),
        broken(traffic.the_canary_answers_those_who_ask_and_a_tenth_of_the_others, *SHOP, "weight", 50),
        broken(traffic.some_calls_are_held_back_and_some_fail_on_purpose, *ORDERS, "fault.abort"),
        broken(traffic.an_address_keeps_callers_on_their_pod, *CATALOG, "consistentHash", {"httpHeaderName": "x-user"}),
        broken(traffic.at_random_neighbours_are_equal_by_chance, *CATALOG, "simple", "ROUND_ROBIN", Random="ROUND_ROBIN"),
        broken(traffic.no_more_pods_are_left_out_than_may_be, *CATALOG, "maxEjectionPercent", 100),
        broken(traffic.a_failing_pod_is_left_out_and_comes_back_after_its_time, *STOCK, "outlierDetection"),
        broken(traffic.grpc_methods_are_allowed_to_those_who_may_call_them, *CALLED, "from"),
        broken(traffic.tcp_connections_are_encrypted_and_allowed_by_identity, "PeerAuthentication", "ledger", "mode", "PERMISSIVE"),
        broken(traffic.what_is_about_requests_is_refused_by_name, CODE, "perfpolicy.policy.model:Service", "speaks_http", value=True),
    ),
    (
        broken(traffic.paths_and_headers_are_changed, *SHOP, "request.remove"),
        broken(traffic.the_canary_answers_those_who_ask_and_a_tenth_of_the_others, *SHOP, "headers.x-canary", {"exact": "maybe"}),
        broken(traffic.istioctl_has_nothing_to_say, *ENTRANCE, "gateways", ["istio-system/absent"]),
        broken(traffic.no_more_pods_are_left_out_than_may_be, *CATALOG, "minHealthPercent"),
    ),
)


@pytest.fixture(scope="module")
def found(real: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Breakage, str]]:
    """Why the proof of each breakage that is asked for did not hold; empty where it did. After that, all of these proofs hold."""
    chosen = {item.callspec.params["breakage"] for item in request.session.items if isinstance(item, pytest.Function)}
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    real.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")
    load.ensure(real.lab)
    real.kubectl("apply", "-f", str(examples.EXAMPLES / NAMESPACE))
    rounds = [[each for each in together if each in chosen] for together in ROUNDS]
    with operator(real.lab, log, NAMESPACE):
        traffic.prepare(real)
    reasons: dict[Breakage, str] = {}
    for together in filter(None, rounds):
        reasons |= a_round(real, together, log)
    with as_they_were(real), operator(real.lab, log, NAMESPACE):
        left = {proof: why for proof, why in fail(real, {each.proof for together in rounds for each in together}).items() if why}
    assert not left, left
    print("\nunbroken again, all of these proofs hold", flush=True)
    yield reasons
    real.kubectl("delete", "-f", str(examples.EXAMPLES / NAMESPACE), "--wait=false", "--ignore-not-found")


def a_round(real: Cluster, breakages: list[Breakage], log: Path) -> dict[Breakage, str]:
    """Break these things together, and ask the proof of each."""
    reasons = dict.fromkeys(breakages, "")
    began = time.monotonic()
    told = {name: value for each in breakages for name, value in each.told.items()}
    for _ in range(TRIES):
        due = [each for each, reason in reasons.items() if not reason]
        wrong = program(*(each.alteration for each in due))
        with as_they_were(real), operator(real.lab, log, NAMESPACE, program=wrong), impatient(told):
            for each in due:
                eventually(lambda each=each: written(real, each.alteration), seconds=60)  # type: ignore[misc]
            why = fail(real, {each.proof for each in due})
        reasons |= {each: why[each.proof] for each in due}
        for each in due:
            print(f"| {each} | {reasons[each][:200].replace('|', '/') or '**still holds**'} |", flush=True)
        print(f"{sum(map(bool, reasons.values()))} of {len(reasons)} proofs failed, after {time.monotonic() - began:.0f} s", flush=True)
        if all(reasons.values()):
            break
    return reasons


def written(real: Cluster, alteration: Alteration) -> None:
    """The object is as the alteration says: applied once more to it, nothing changes."""
    if alteration.kind == CODE:
        return
    live = real.get(alteration.kind.lower(), alteration.name, NAMESPACE)
    assert live is not None, f"not yet: {alteration.kind} {alteration.name}"
    before = yaml_text.dump(live["spec"])
    alteration.alter(live)
    assert yaml_text.dump(live["spec"]) == before, f"not yet: {alteration}"


def fail(real: Cluster, asked: Set[Proof]) -> dict[Proof, str]:
    """Why each of these proofs does not hold, those of a story one after the other; empty where it does."""

    def told(story: tuple[Proof, ...]) -> dict[Proof, str]:
        return {proof: fails(real, proof) for proof in story if proof in asked}

    with ThreadPoolExecutor() as pool:
        return {proof: why for found in pool.map(told, traffic.STORIES) for proof, why in found.items()}


@contextmanager
def impatient(told: Mapping[str, str]) -> Iterator[None]:
    """Proofs wait for less long, and for the algorithms told."""
    with patch.dict(traffic.LB_POLICIES, told), patch.object(eventually, "__defaults__", (PATIENCE,)):
        yield


@contextmanager
def as_they_were(real: Cluster) -> Iterator[None]:
    """Take back what proofs have changed: the policies' specs, a policy more, a pod more. The block's operator writes the rest."""
    real.kubectl("delete", "pp", "copy", "-n", NAMESPACE, "--ignore-not-found")
    real.kubectl("scale", "deployment", "shop", "-n", NAMESPACE, "--replicas=1")
    for path in sorted((examples.EXAMPLES / NAMESPACE).glob("*.yaml")):
        if "PerformancePolicy" in {document["kind"] for document in yaml_text.load_all(path.read_text())}:
            real.kubectl("replace", "-f", str(path))
    yield


def fails(real: Cluster, proof: Proof) -> str:
    """Why the proof does not hold, in a line; empty where it does."""
    try:
        proof(real)
    except (AssertionError, CommandError, KeyError, ValueError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


@pytest.mark.parametrize("breakage", [each for together in ROUNDS for each in together], ids=str)
def test_its_proof_fails(found: Mapping[Breakage, str], breakage: Breakage) -> None:
    assert found[breakage], "it still holds"
