"""examples/telemetry on the real cluster: spans that arrive at a receiver, and lines in the logs of real sidecars."""

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e import examples
from e2e.asking import Answer, Request, ask, call
from e2e.cluster import Cluster, istioctl_is_content
from e2e.test_traffic import CHECK, is_share
from e2e.waiting import eventually
from lab import backend_control, tracing

NAMESPACE = "telemetry"
POLICIES = ("books", "payments")


@pytest.fixture(scope="module")
def telemetry(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/telemetry, applied with kubectl, and an operator for its namespace; every policy Ready."""
    with examples.applied(real, NAMESPACE, tmp_path_factory.mktemp("operator") / "operator.log"):
        examples.await_ready(real, NAMESPACE, POLICIES, seconds=90)
        yield real


def asked(cluster: Cluster, path: str, times: int = 1, **headers: str) -> list[Answer]:
    """Answers of `books` to equal requests from the pod with a sidecar; _ in a header's name is -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answers = ask(cluster.lab, "mesh", [Request(f"http://books.{NAMESPACE}{path}", headers=named)] * times)
    assert {answer.status for answer in answers} == {200}, answers
    return answers


def seen(answer: Answer) -> dict[str, str]:
    """The headers that arrived at the application."""
    return dict(json.loads(answer.body)["headers"])


def lines(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """What the sidecar of a policy's pod wrote about requests."""
    log = cluster.kubectl("logs", "-n", NAMESPACE, f"deployment/{name}", "-c", "istio-proxy")
    return [json.loads(line) for line in log.splitlines() if '"response_code"' in line]


def change(cluster: Cluster, name: str, **spec: Any) -> None:
    """Change a policy. Connections that are there already may see the old one for a while: what is asked for next is asked for again."""
    cluster.kubectl("patch", "pp", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_share_of_the_requests_begins_a_trace_whose_spans_arrive(telemetry: Cluster) -> None:
    times = 100
    eventually(lambda: "x-b3-sampled" in seen(asked(telemetry, "/first")[0]))
    arrived = [seen(answer) for answer in asked(telemetry, "/traced", times)]
    sampled = Counter(headers["x-b3-sampled"] for headers in arrived)
    assert is_share(sampled["1"], times, 0.2), sampled
    trace = next(headers["x-b3-traceid"] for headers in arrived if headers["x-b3-sampled"] == "1")

    def reported() -> None:
        (span,) = tracing.spans(telemetry.lab, trace)
        assert (span["kind"], span["localEndpoint"]["serviceName"]) == ("SERVER", f"books.{NAMESPACE}")
        assert (span["tags"]["http.status_code"], span["tags"]["http.method"]) == ("200", "GET")

    eventually(reported)


def test_what_a_caller_decided_stands(telemetry: Cluster) -> None:
    """A proxy reports in order: what came before a span that has arrived would have arrived, too."""

    def traced(sampled: str) -> str:
        trace = secrets.token_hex(16)
        asked(telemetry, "/decided", 5, x_b3_traceid=trace, x_b3_spanid=secrets.token_hex(8), x_b3_sampled=sampled)
        return trace

    declined, wanted = traced("0"), traced("1")
    eventually(lambda: len(tracing.spans(telemetry.lab, wanted)) == 5)
    assert tracing.spans(telemetry.lab, declined) == []


def test_without_tracing_no_request_gets_a_trace(telemetry: Cluster) -> None:
    def traced() -> set[bool]:
        return {"x-b3-sampled" in seen(answer) for answer in asked(telemetry, "/traced?", 10)}

    change(telemetry, "books", observability={"tracing": {"mode": "Disabled", "sampling": None, "provider": None}})
    eventually(lambda: traced() == {False})


def access_logs_are_off_or_of_every_request_or_of_those_that_fail(telemetry: Cluster) -> None:
    """Off in the policy, though on in the mesh's configuration. A proxy writes its lines in order."""

    def logged() -> Counter[tuple[str, int]]:
        return Counter((line["path"], line["response_code"]) for line in lines(telemetry, "books"))

    def of_every_request() -> None:
        path = f"/on?{secrets.token_hex(4)}"
        asked(telemetry, path, 5)
        eventually(lambda: logged()[path, 200] == 5, seconds=3)

    def of_failures() -> None:
        # The probe's path is sound whatever else fails.
        sound, failed = (f"{path}?{secrets.token_hex(4)}" for path in ("/readyz", "/failed"))
        answers = ask(telemetry.lab, "mesh", [Request(f"http://books.{NAMESPACE}{path}") for path in (sound, failed)])
        assert [answer.status for answer in answers] == [200, 500]
        eventually(lambda: logged()[failed, 500] == 1, seconds=3)
        assert not logged()[sound, 200]

    asked(telemetry, "/off", 3)
    change(telemetry, "books", observability={"accessLogs": {"mode": None}})
    eventually(of_every_request)
    assert not logged()["/off", 200]
    change(telemetry, "books", observability={"accessLogs": {"requests": "Failed"}})
    backend_control.set_fault(telemetry.lab, NAMESPACE, "app=books", error_ratio=1, error_code=500)
    eventually(of_failures)


def calls_of_grpc_that_fail_have_a_line_and_so_have_those_never_answered(telemetry: Cluster) -> None:
    """Each of the former is a 200 of HTTP; the latter have no status. The sound ones come first."""
    target = f"payments.{NAMESPACE}:9000"

    def logged() -> Counter[tuple[int, int | None]]:
        return Counter((line["response_code"], line["grpc_status"]) for line in lines(telemetry, "payments") if CHECK in line["path"])

    assert {answer.code for answer in call(telemetry.lab, target, [CHECK] * 3)} == {0}
    backend_control.set_fault(telemetry.lab, NAMESPACE, "app=payments", error_ratio=1, error_code=500)
    assert {answer.code for answer in call(telemetry.lab, target, [CHECK] * 2)} == {13}
    eventually(lambda: logged() == {(200, 13): 2})
    # Callers wait for a second, then they go.
    change(telemetry, "payments", traffic={"timeout": "1s", "retries": {"mode": "Disabled"}})
    backend_control.set_fault(telemetry.lab, NAMESPACE, "app=payments", error_ratio=0, latency_ms=3000)

    def unanswered() -> None:
        (answer,) = call(telemetry.lab, target, [CHECK])
        assert answer.code == 4, answer
        eventually(lambda: 0 in {code for code, _ in logged()}, seconds=3)

    eventually(unanswered)


def test_access_logs(telemetry: Cluster) -> None:
    """Two policies at once."""
    stories = (
        access_logs_are_off_or_of_every_request_or_of_those_that_fail,
        calls_of_grpc_that_fail_have_a_line_and_so_have_those_never_answered,
    )
    with ThreadPoolExecutor(len(stories)) as pool:
        for told in [pool.submit(story, telemetry) for story in stories]:
            told.result()


def test_istioctl_has_nothing_to_say(telemetry: Cluster) -> None:
    eventually(lambda: istioctl_is_content(telemetry, NAMESPACE))
