"""Built-in defaults < class.defaults < policy, merged in wire form, with the origin of every value.

Objects and maps merge field by field, lists and unions (`atomic` models) replace as a whole. A block that a higher layer disables loses
what lower layers put into it; one that a higher layer fills is no longer disabled. What a class offers applies where the policy uses the
block. Called by resolve and by `render --show-origin`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from perfpolicy.api.base import Block, Wire
from perfpolicy.api.limits import Compression, Concurrency, GlobalRateLimit, LocalRateLimit, ResponseHeaders
from perfpolicy.api.observability import AccessLogs, Scrape, Tracing
from perfpolicy.api.parse import dump
from perfpolicy.api.performance_class import PerformanceClass
from perfpolicy.api.policy import PerformancePolicy, PolicySettings
from perfpolicy.api.routes import Retries
from perfpolicy.api.targets import HttpSource
from perfpolicy.api.traffic import CircuitBreaker, LoadBalancer

BUILT_IN_ORIGIN: Final = "built-in default"
POLICY_ORIGIN: Final = "policy"

BUILT_IN: Final[Mapping[str, Any]] = {
    "mode": "Enforce",
    "suspend": "Disabled",
    "sli": {
        "reporter": "Destination",
        "badCodes": ["5xx"],
        "grpcBadCodes": ["Unknown", "DeadlineExceeded", "Internal", "Unavailable", "DataLoss"],
    },
    "thresholds": {"window": "5m"},
    "metrics": {"source": "Istio", "noData": "Unknown", "noTraffic": "Unknown", "minimumRate": "0.1", "slowRequest": "1s"},
    "security": {"mtls": "Inherit", "defaultDeny": "Disabled"},
    "observability": {"alerts": {"mode": "Enabled"}, "dashboard": "Disabled"},
}
"""Defaults that always apply."""

WHEN_USED: Final[Mapping[type[Wire], Mapping[str, Any]]] = {
    Retries: {"attempts": 3, "perTryTimeout": "10s", "retryOn": ["5xx", "gateway-error", "connect-failure", "refused-stream"]},
    LoadBalancer: {"algorithm": "LeastRequest"},
    CircuitBreaker: {
        "consecutiveErrors": 5,
        "interval": "30s",
        "baseEjection": "30s",
        "maxEjected": "50%",
        "minHealth": "0%",
    },
    LocalRateLimit: {"per": "1m"},
    GlobalRateLimit: {"per": "1m"},
    Concurrency: {"mode": "Fixed"},
    ResponseHeaders: {"requestId": "Enabled", "responseTime": "Enabled", "security": "Enabled"},
    Compression: {"minBytes": 1000},
    Scrape: {"path": "/metrics", "podMonitor": "Disabled"},
    Tracing: {"sampling": "10%"},
    AccessLogs: {"requests": "All", "provider": "envoy"},
    HttpSource: {
        "requests": "http_requests_total",
        "durations": "http_request_duration_seconds",
        "histogram": "Classic",
        "codeLabel": "code",
        "pathLabel": "path",
        "buckets": ["5ms", "10ms", "25ms", "50ms", "100ms", "250ms", "500ms", "1s", "2s500ms", "5s", "10s"],
    },
}
"""Defaults of a block, which apply when a policy or class uses the block."""


@dataclass(frozen=True, slots=True)
class Layered:
    """Merged settings in wire form; `origins` maps the path of every value (`spec.traffic.timeout`) to the layer it came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    own: Mapping[str, Any]
    """What the policy itself wrote."""

    def at(self, path: str) -> Any:
        """The merged value at a path below spec, None where nothing is."""
        return _at(self.values, path)

    def by_policy(self, path: str) -> bool:
        """Whether the policy itself, not its class, wrote something at `path`."""
        return _at(self.own, path) is not None


def _at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for key in path.split(".")[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True, slots=True)
class _Layer:
    origin: str
    values: Mapping[str, Any]


def merge(policy: PerformancePolicy, cls: PerformanceClass) -> Layered:
    """The settings of `policy` under `cls`, every default filled."""
    own = {key: value for key, value in dump(policy.spec).items() if key not in ("className", "workload")}
    layers = [
        _Layer(BUILT_IN_ORIGIN, BUILT_IN),
        _Layer(f"class {cls.metadata.name}", cls.default_values),
        _Layer(POLICY_ORIGIN, own),
    ]
    origins: dict[str, str] = {}
    return Layered(_merge_model(PolicySettings, layers, "spec", origins), origins, own)


def _merge_model(model: type[Wire], layers: list[_Layer], path: str, origins: dict[str, str]) -> dict[str, Any]:
    if issubclass(model, Block):
        layers = _effective(layers)
    if model in WHEN_USED and layers[-1].values.get("mode") != "Disabled":
        layers = [_Layer(BUILT_IN_ORIGIN, WHEN_USED[model]), *layers]
    merged: dict[str, Any] = {}
    for key, child in _fields(model):
        having = [_Layer(layer.origin, layer.values[key]) for layer in layers if key in layer.values]
        if not having:
            continue
        place = f"{path}.{key}"
        if child is not None and not child.atomic:
            merged[key] = _merge_model(child, having, place, origins)
        elif child is None and isinstance(having[-1].values, Mapping):
            merged[key] = _merge_map(having, place, origins)
        else:
            merged[key], origins[place] = having[-1].values, having[-1].origin
    return merged


@cache
def _fields(model: type[Wire]) -> tuple[tuple[str, type[Wire] | None], ...]:
    """Wire name and model of each field."""
    return tuple((str(info.alias), submodel(info.annotation)) for info in model.model_fields.values())


def _merge_map(layers: list[_Layer], path: str, origins: dict[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer.values
        origins |= {f"{path}.{key}": layer.origin for key in layer.values}
    return merged


def _effective(layers: list[_Layer]) -> list[_Layer]:
    """The layers of a block from the last one that disables it, without that one if a later one uses the block again; offers taken up."""
    disabling = [index for index, layer in enumerate(layers) if layer.values.get("mode") == "Disabled"]
    if disabling:
        layers = layers[disabling[-1] + 1 :] or [layers[disabling[-1]]]
    return [*map(_taken_up, layers[:-1]), layers[-1]]


def _taken_up(layer: _Layer) -> _Layer:
    """A layer whose offer a higher layer takes up."""
    if layer.values.get("mode") != "Offered":
        return layer
    return _Layer(layer.origin, {key: value for key, value in layer.values.items() if key != "mode"})


def submodel(annotation: Any) -> type[Wire] | None:
    """The wire model in a field's annotation `M` or `M | None`; None for any other."""
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, Wire):
            return option
    return None
