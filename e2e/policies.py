"""Policies and classes the end-to-end tests create: small, and complete in the kinds of children they have."""

from typing import Any

API_VERSION = "perfpolicy.io/v1alpha1"
CLASS = "e2e"
CHILDREN = {
    "networkpolicy": "{name}",
    "peerauthentication": "{name}",
    "authorizationpolicy": "{name}-allow",
    "envoyfilter": "{name}",
    "poddisruptionbudget": "{name}",
    "service": "{name}",
    "destinationrule": "{name}",
    "virtualservice": "{name}",
    "telemetry": "{name}",
    "deployment": "{name}",
    "horizontalpodautoscaler": "{name}",
    "prometheusrule": "{name}",
}
"""kubectl's word for each kind of child of `a_policy`, and its name."""
SCRAPED: dict[str, Any] = {
    "service": {"port": 80, "metricsPort": 9090},
    "observability": {"scrape": {"podMonitor": "Enabled"}, "accessLogs": {}},
}
"""Changes of `a_policy`'s spec by which it also has a PodMonitor, of its own name."""


def a_class(name: str = CLASS, **spec: Any) -> dict[str, Any]:
    """A class that grants every namespace what `a_policy` asks for. Its metrics source does not exist: measuring is not tested with it."""
    grant = {"workloadCreation": "Allowed", "envoyFilters": "Allowed", "hosts": ["*.e2e.test"]}
    grants = [{"name": "all", **grant, "gateways": [{"namespace": "e2e", "name": "public"}]}]
    return {
        "apiVersion": API_VERSION,
        "kind": "PerformanceClass",
        "metadata": {"name": name},
        "spec": {"grants": grants, "metrics": {"address": "http://127.0.0.1:9"}, **spec},
    }


def a_policy(name: str, namespace: str, *, replicas: int = 1, **spec: Any) -> dict[str, Any]:
    """A policy with a child of every kind; keyword arguments replace parts of its spec."""
    deployment = {
        "image": "localhost/backend:lab",
        "replicas": replicas,
        "ports": [{"name": "http", "port": 8080}],
        "resources": {"requests": {"cpu": "10m"}},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "PerformancePolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "className": CLASS,
            "workload": {"deployment": deployment},
            "service": {"port": 80},
            "thresholds": {"window": "1m", "errorRate": {"max": "5%"}, "latency": [{"quantile": "p95", "max": "500ms"}]},
            "objectives": [{"name": "availability", "sli": "Availability", "target": "99.9%", "windowDays": 30}],
            "traffic": {
                "timeout": "10s",
                "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": ["5xx"]},
                "loadBalancer": {"algorithm": "LeastRequest"},
                "circuitBreaker": {"consecutiveErrors": 5, "interval": "30s", "baseEjection": "30s", "maxEjected": "50%"},
                "compression": {},
            },
            "security": {"mtls": "Strict", "allow": [{"from": {"namespaces": [namespace]}}]},
            "network": {"ingress": [{"fromPods": {"app": "client"}, "ports": [{"port": 8080}]}]},
            "scaling": {"minReplicas": 1, "maxReplicas": 5, "target": {"cpu": "70%"}},
            "disruptionBudget": {"maxUnavailable": "1"},
            "observability": {"accessLogs": {}},
            **spec,
        },
    }
