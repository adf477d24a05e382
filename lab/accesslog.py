"""From an Envoy access log entry to the labels of Istio's standard metrics. Pure.

A vanilla Envoy has no istio.stats filter, so the lab derives istio_requests_total and
istio_request_duration_milliseconds from the access logs its real sidecars and gateway write. Names, label values and
buckets are Istio's own, so that a query written here works in any Istio mesh. FORMAT is what the mesh is told to log:
every key read below is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# Istio's default boundaries of istio_request_duration_milliseconds.
BUCKETS_MS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000)

FORMAT: Mapping[str, str] = {
    "start_time": "%START_TIME%",
    "duration": "%DURATION%",
    "response_duration": "%RESPONSE_DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "content_type": "%REQ(CONTENT-TYPE)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "route_name": "%ROUTE_NAME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream_local_san": "%UPSTREAM_LOCAL_URI_SAN%",
    "upstream_peer_san": "%UPSTREAM_PEER_URI_SAN%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    # Not DOWNSTREAM_REMOTE_ADDRESS: behind a gateway that one is the client's from X-Forwarded-For.
    "downstream_peer_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "downstream_local_san": "%DOWNSTREAM_LOCAL_URI_SAN%",
    "downstream_peer_san": "%DOWNSTREAM_PEER_URI_SAN%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}

UNKNOWN = "unknown"
# Clusters that belong to no service: Istio puts the cluster's name where the service's would be.
_NO_SERVICE_CLUSTERS = frozenset({"BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster", "InboundPassthroughClusterIpv4"})


class Key(NamedTuple):
    """The part of an entry that decides its labels; fields are the entry's, None where it had none."""

    cluster: str | None
    code: int | None
    flags: str | None
    upstream: str | None
    peer_address: str
    grpc: bool
    grpc_status: int | None
    downstream_peer: str | None
    downstream_local: str | None
    upstream_peer: str | None
    upstream_local: str | None
    # Only where no cluster names a service: the host a client asks for is its own invention and may be any number of names.
    authority: str | None
    local_address: str | None


@dataclass(frozen=True)
class Service:
    """What the labels need of a Kubernetes Service; `ports` are its target ports, numbers or container port names."""

    name: str
    namespace: str
    selector: Mapping[str, str]
    ports: frozenset[int | str]
    created: str


@dataclass(frozen=True)
class Pod:
    """What the labels need of a pod with or without a sidecar."""

    name: str
    namespace: str
    uid: str
    address: str
    workload: str
    labels: Mapping[str, str]
    named_ports: Mapping[str, int]
    # A gateway's proxy serves no application in its own pod: whatever it logs, it reports as source.
    gateway: bool
    has_proxy: bool


@dataclass(frozen=True)
class Inventory:
    """The pods by address and the services, as known when an entry is labelled."""

    pods_by_address: Mapping[str, Pod]
    services: tuple[Service, ...]


def pod_from(document: Mapping[str, Any]) -> Pod:
    """A Pod from its API object."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
    labels = metadata.get("labels", {})
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    ports = [port for container in spec["containers"] for port in container.get("ports", ())]
    alive = status.get("phase") in ("Pending", "Running")
    return Pod(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        # A finished pod's address may already be another's.
        address=status.get("podIP", "") if alive and not spec.get("hostNetwork") else "",
        workload=workload_of(metadata),
        labels=labels,
        named_ports={port["name"]: port["containerPort"] for port in ports if "name" in port},
        gateway=metadata.get("annotations", {}).get("inject.istio.io/templates") == "gateway",
        has_proxy=alive and any(container["name"] == "istio-proxy" for container in containers),
    )


def workload_of(metadata: Mapping[str, Any]) -> str:
    """The name Istio gives a pod's workload: its Deployment (the ReplicaSet's name without the hash), else its controller, else itself."""
    labels = metadata.get("labels", {})
    if "service.istio.io/workload-name" in labels:
        return str(labels["service.istio.io/workload-name"])
    owner = next((owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")), None)
    if owner is None:
        return str(metadata["name"])
    suffix = f"-{labels.get('pod-template-hash', '')}"
    if owner["kind"] == "ReplicaSet" and len(suffix) > 1 and owner["name"].endswith(suffix):
        return str(owner["name"].removesuffix(suffix))
    return str(owner["name"])


def service_from(document: Mapping[str, Any]) -> Service:
    """A Service from its API object."""
    metadata, spec = document["metadata"], document["spec"]
    return Service(
        name=metadata["name"],
        namespace=metadata["namespace"],
        selector=spec.get("selector") or {},
        ports=frozenset(port.get("targetPort", port["port"]) for port in spec.get("ports", ())),
        created=metadata["creationTimestamp"],
    )


def key_of(entry: Mapping[str, Any]) -> Key | None:
    """The key of an entry in FORMAT; None for what is not an HTTP request (a TCP connection, a refused handshake)."""
    if not str(entry["protocol"] or "").startswith("HTTP"):
        return None
    cluster = entry["upstream_cluster"]
    served = bool(cluster) and cluster not in _NO_SERVICE_CLUSTERS
    grpc = str(entry["content_type"] or "").startswith("application/grpc")
    return Key(
        cluster,
        entry["response_code"],
        entry["response_flags"],
        entry["upstream_host"],
        _address(entry["downstream_peer_address"]),
        grpc,
        entry["grpc_status"] if grpc else None,
        entry["downstream_peer_san"],
        entry["downstream_local_san"],
        entry["upstream_peer_san"],
        entry["upstream_local_san"],
        None if served else entry["authority"],
        None if served else entry["downstream_local_address"],
    )


def labels_of(key: Key, proxy: Pod, inventory: Inventory) -> dict[str, str]:
    """Istio's standard labels for an entry with `key` that the proxy in pod `proxy` wrote."""
    cluster = key.cluster or ""
    common = {
        "request_protocol": "grpc" if key.grpc else "http",
        # 0: the client left before there was a status.
        "response_code": str(key.code or 0),
        "grpc_response_status": "" if key.grpc_status is None else str(key.grpc_status),
        "response_flags": key.flags or "-",
    }
    if not proxy.gateway and _is_inbound(cluster, key.local_address, proxy):
        return {
            "reporter": "destination",
            **_peer("source", inventory.pods_by_address.get(key.peer_address), key.downstream_peer),
            **_peer("destination", proxy, key.downstream_local),
            **_inbound_service(cluster, key.authority, key.local_address, proxy, inventory.services),
            **common,
            "connection_security_policy": "mutual_tls" if key.downstream_peer else "none",
        }
    return {
        "reporter": "source",
        **_peer("source", proxy, key.upstream_local),
        **_peer("destination", inventory.pods_by_address.get(_address(key.upstream)), key.upstream_peer),
        **_outbound_service(cluster, key.authority),
        **common,
        "connection_security_policy": UNKNOWN,
    }


def _is_inbound(cluster: str, local: str | None, proxy: Pod) -> bool:
    if cluster:
        return cluster.startswith(("inbound|", "InboundPassthroughCluster"))
    # Answered before a cluster was chosen: inbound connections end at the pod's own address.
    return _address(local) == proxy.address


def _address(host_and_port: str | None) -> str:
    return (host_and_port or "").rpartition(":")[0].strip("[]")


def _peer(side: str, pod: Pod | None, principal: str | None) -> dict[str, str]:
    labels: Mapping[str, str] = pod.labels if pod else {}
    workload = pod.workload if pod else UNKNOWN
    canonical = labels.get("service.istio.io/canonical-name") or labels.get("app.kubernetes.io/name") or labels.get("app") or workload
    revision = labels.get("service.istio.io/canonical-revision") or labels.get("app.kubernetes.io/version") or labels.get("version")
    return {
        f"{side}_workload": workload,
        f"{side}_workload_namespace": pod.namespace if pod else UNKNOWN,
        f"{side}_principal": principal or UNKNOWN,
        f"{side}_app": labels.get("app", UNKNOWN),
        f"{side}_version": labels.get("version", UNKNOWN),
        f"{side}_canonical_service": canonical,
        f"{side}_canonical_revision": (revision or "latest") if pod else "latest",
        f"{side}_cluster": "Kubernetes" if pod else UNKNOWN,
    }


def _service(host: str, name: str, namespace: str) -> dict[str, str]:
    return {"destination_service": host, "destination_service_name": name, "destination_service_namespace": namespace}


def _inbound_service(cluster: str, authority: str | None, local: str | None, proxy: Pod, services: Iterable[Service]) -> dict[str, str]:
    text = cluster.split("|")[1] if cluster.startswith("inbound|") else (local or "").rpartition(":")[2]
    port = int(text) if text.isdigit() else 0
    selecting = [
        service
        for service in services
        if service.namespace == proxy.namespace
        and service.selector
        and service.selector.items() <= proxy.labels.items()
        and any(port == (proxy.named_ports.get(target) if isinstance(target, str) else target) for target in service.ports)
    ]
    if not selecting:
        return _service(authority or UNKNOWN, cluster if cluster in _NO_SERVICE_CLUSTERS else UNKNOWN, proxy.namespace)
    # Several services on one port: Istio's inbound cluster lists the oldest first, and its filter takes the first.
    first = min(selecting, key=lambda service: (service.created, service.name))
    return _service(f"{first.name}.{first.namespace}.svc.cluster.local", first.name, first.namespace)


def _outbound_service(cluster: str, authority: str | None) -> dict[str, str]:
    parts = cluster.split("|")
    if len(parts) != 4:
        return _service(authority or UNKNOWN, cluster if cluster in _NO_SERVICE_CLUSTERS else UNKNOWN, UNKNOWN)
    host = parts[3]
    pieces = host.split(".")
    if len(pieces) >= 3 and pieces[2] == "svc":
        return _service(host, pieces[0], pieces[1])
    return _service(host, host, UNKNOWN)
