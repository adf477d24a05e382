"""Requests as callers in the cluster make them, one after the other, and what each was answered: by k6 in the lab's pods for load.

`mesh` is a pod with a sidecar (mesh routes, mTLS, the identity cluster.local/ns/load/sa/default), `outside` one without.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Literal

from lab.lab import Lab
from lab.load import NAMESPACE

_PODS = {"mesh": "k6", "outside": "k6-outside"}
_SCRIPT = """
import http from "k6/http";
export const options = {{ vus: 1, iterations: 1, batch: 500, batchPerHost: 500 }};
const params = (asked) => ({{ headers: asked.headers, timeout: "8s", redirects: 0 }});
const show = (answer) =>
  console.log("ANSWER" + JSON.stringify([answer.status, answer.timings.duration, answer.headers, answer.error, answer.body]));
export default function () {{
  const requests = {requests};
  if ({at_once}) http.batch(requests.map((asked) => [asked.method, asked.url, null, params(asked)])).forEach(show);
  else for (const asked of requests) show(http.request(asked.method, asked.url, null, params(asked)));
}}
"""
_GRPC_SCRIPT = """
import grpc from "k6/net/grpc";
export const options = {{ vus: 1, iterations: 1 }};
export default function () {{
  const client = new grpc.Client();
  client.connect({target}, {{ plaintext: true, reflect: true, timeout: "8s" }});
  for (const method of {methods}) {{
    const answer = client.invoke(method, {{}}, {{ timeout: "8s" }});
    console.log("ANSWER" + JSON.stringify([answer.status, answer.headers, answer.error ? answer.error.message : "", answer.message]));
  }}
}}
"""


@dataclass(frozen=True)
class Request:
    """One request."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """`status` is 0 where none came; `error` says why. Header names are in lower case."""

    status: int
    milliseconds: float
    headers: Mapping[str, str]
    error: str
    body: str


@dataclass(frozen=True)
class Called:
    """`code` is the gRPC status: 0 is OK."""

    code: int
    headers: Mapping[str, list[str]]
    error: str
    message: Mapping[str, Any]


def ask(lab: Lab, place: Literal["mesh", "outside"], requests: Iterable[Request], *, at_once: bool = False) -> list[Answer]:
    """Send the requests in order, or all `at_once`, from a pod of the lab; their answers. lab.load.ensure must have been called.

    Cookies an answer sets are sent with the requests that follow it.
    """
    script = _SCRIPT.format(requests=json.dumps([vars(request) for request in requests]), at_once=json.dumps(at_once))
    return [Answer(status, ms, _lower(headers), error, body or "") for status, ms, headers, error, body in _run(lab, place, script)]


def call(lab: Lab, target: str, methods: Iterable[str], namespace: str = NAMESPACE) -> list[Called]:
    """Call gRPC methods with empty messages, one after the other over one connection, from the pod with a sidecar; of another `namespace`:
    from that of lab.load.caller.

    The schema comes by reflection: where that is refused, so is everything (CommandError).
    """
    script = _GRPC_SCRIPT.format(target=json.dumps(target), methods=json.dumps(list(methods)))
    return [Called(code, headers or {}, error, message or {}) for code, headers, error, message in _run(lab, "mesh", script, namespace)]


def _run(lab: Lab, place: Literal["mesh", "outside"], script: str, namespace: str = NAMESPACE) -> list[Any]:
    """What a script wrote behind ANSWER, line by line."""
    options = ("--quiet", "--no-usage-report", "--summary-mode=disabled", "--address", "", "--log-format", "raw", "--log-output", "stdout")
    pod = f"deployment/{_PODS[place]}"
    output = lab.kubectl("-n", namespace, "exec", "-i", pod, "-c", "k6", "--", "k6", "run", *options, "-", input=script)
    return [json.loads(line.removeprefix("ANSWER")) for line in output.splitlines() if line.startswith("ANSWER")]


def ask_gateway(url: str, host: str, path: str) -> Answer:
    """One GET from this machine through the ingress gateway."""
    request = urllib.request.Request(f"{url}{path}", headers={"Host": host})  # noqa: S310 - the lab's own gateway
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=8) as answer:
            return Answer(answer.status, 0, _lower(answer.headers), "", answer.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, 0, _lower(error.headers), "", error.read().decode())


def _lower(headers: Mapping[str, str] | Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
