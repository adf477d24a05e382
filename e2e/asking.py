"""Requests as callers in the cluster make them, one after the other, and what each was answered: by k6 in the lab's pods for load.

`mesh` is a pod with a sidecar (mesh routes, mTLS, the identity cluster.local/ns/load/sa/default), `outside` one without.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Literal

from lab.lab import Lab
from lab.load import NAMESPACE

_PODS = {"mesh": "k6", "outside": "k6-outside"}
_SCRIPT = """
import http from "k6/http";
export const options = {{ vus: 1, iterations: 1 }};
export default function () {{
  for (const asked of {requests}) {{
    const answer = http.request(asked.method, asked.url, null, {{ headers: asked.headers, timeout: "8s", redirects: 0 }});
    console.log("ANSWER" + JSON.stringify([answer.status, answer.timings.duration, answer.headers, answer.error, answer.body]));
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


def ask(lab: Lab, place: Literal["mesh", "outside"], requests: Iterable[Request]) -> list[Answer]:
    """Send the requests in order from a pod of the lab; their answers. lab.load.ensure must have been called."""
    script = _SCRIPT.format(requests=json.dumps([vars(request) for request in requests]))
    k6 = (
        "run",
        "--quiet",
        "--no-usage-report",
        "--summary-mode=disabled",
        "--address",
        "",
        "--log-format",
        "raw",
        "--log-output",
        "stdout",
    )
    output = lab.kubectl("-n", NAMESPACE, "exec", "-i", f"deployment/{_PODS[place]}", "-c", "k6", "--", "k6", *k6, "-", input=script)
    lines = [json.loads(line.removeprefix("ANSWER")) for line in output.splitlines() if line.startswith("ANSWER")]
    return [Answer(status, ms, _lower(headers), error, body or "") for status, ms, headers, error, body in lines]


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
