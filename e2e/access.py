"""Rights in the end-to-end tests: the chart's own roles and admission policy, users, and ServiceAccounts with nothing but their token."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.conftest import ROOT
from lab.controlplane import cluster_ca
from lab.errors import CommandError
from lab.lab import Lab, write_settings
from perfpolicy import yaml_text

CHART = ROOT / "charts" / "perfpolicy"
SYSTEM = "perfpolicy-system"
RBAC_GROUP = "rbac.authorization.k8s.io"


def rendered(lab: Lab, release: str, template: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of one of the chart's templates."""
    file = write_settings(lab.directory / f"{release}.json", json.dumps(values))
    text = lab.helm("template", release, str(CHART), "-n", SYSTEM, "-f", str(file), "--show-only", f"templates/{template}")
    return [each for each in yaml_text.load_all(text) if each]


@contextmanager
def applied(cluster: Cluster, objects: list[dict[str, Any]]) -> Iterator[None]:
    """The objects, for as long as the block lasts."""
    cluster.apply(*objects)
    try:
        yield
    finally:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", input=listed)


def service_account(cluster: Cluster, name: str, folder: Path) -> Path:
    """A kubeconfig of a new ServiceAccount in the chart's namespace, with nothing but its token."""
    metadata = {"name": name, "namespace": SYSTEM}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
    )
    token = cluster.kubectl("create", "token", name, "-n", SYSTEM).strip()
    ca = str(cluster_ca(cluster.lab).pair.certificate)
    path = folder / f"{name}.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": cluster.lab.server, "certificate-authority": ca}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        "current-context": "lab",
    }
    path.write_text(json.dumps(content))
    return path


def user_name(account: str) -> str:
    """How the API server names a ServiceAccount of the chart's namespace."""
    return f"system:serviceaccount:{SYSTEM}:{account}"


def may(cluster: Cluster, user: str, verb: str, resource: str, namespace: str) -> bool:
    """Whether the API server lets the user: what a role grants it knows a moment after the role is written."""
    try:
        kind, _, subresource = resource.partition("/")
        part = [f"--subresource={subresource}"] if subresource else []
        return cluster.kubectl("auth", "can-i", verb, kind, *part, "-n", namespace, f"--as={user}").strip() == "yes"
    except CommandError:
        return False


def role(user: str, namespace: str, *rules: Mapping[str, Any], name: str = "") -> list[dict[str, Any]]:
    """A Role with these rules in the namespace, bound to the user."""
    metadata = {"name": name or user, "namespace": namespace}
    return [
        {"apiVersion": f"{RBAC_GROUP}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": name or user},
            "subjects": [{"apiGroup": RBAC_GROUP, "kind": "User", "name": user}],
        },
    ]


def rule(group: str, resources: list[str], verbs: list[str], *names: str) -> dict[str, Any]:
    """One RBAC rule."""
    return {"apiGroups": [group], "resources": resources, "verbs": verbs, **({"resourceNames": list(names)} if names else {})}
