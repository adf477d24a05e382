"""Wire format of PerformancePolicy, and the one way a raw object becomes one."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perfpolicy.api.base import POLICY_NAME_MAX, DnsLabel, Rule, Wire
from perfpolicy.api.maintenance import MaintenanceWindows
from perfpolicy.api.observability import Observability
from perfpolicy.api.parse import parse
from perfpolicy.api.scaling import DisruptionBudget, Scaling
from perfpolicy.api.security import Network, Security
from perfpolicy.api.targets import Metrics, Objectives, Sli, Thresholds
from perfpolicy.api.traffic import Traffic
from perfpolicy.api.workload import ServiceSpec, Workload
from perfpolicy.vocabulary import API_VERSION, POLICY_KIND


class Metadata(BaseModel):
    """The part of an object's metadata that is read."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)
    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = Field(default="", alias="creationTimestamp")
    annotations: dict[str, str] = Field(default_factory=dict)


class PolicySettings(Wire):
    """Everything of a policy that its class may fill."""

    mode: Literal["Enforce", "Observe"] | None = None
    """Enforce: everything is written. Observe: only the rules that measure and the dashboard; what was written before stays as it is. The
    status says what is promised and what is met."""
    suspend: Literal["Disabled", "All"] | None = None
    """All: the operator writes nothing for this policy until it is Disabled again. Left out: Disabled."""
    service: ServiceSpec | None = None
    """The Service the policy creates, and where the application's own metrics are."""
    sli: Sli | None = None
    """What counts as a bad request, and whose proxy counts."""
    thresholds: Thresholds | None = None
    """Limits that hold at every moment."""
    objectives: Objectives | None = None
    """Service level objectives with error budgets."""
    maintenance: MaintenanceWindows | None = None
    """Planned maintenance, left out of budgets. Leave a past window in place or take it out: neither changes what was counted."""
    metrics: Metrics | None = None
    """Where the measurements come from, and what their absence means."""
    traffic: Traffic | None = None
    """Routing and resilience."""
    security: Security | None = None
    """Encryption, and who may call what."""
    network: Network | None = None
    """Network policies."""
    scaling: Scaling | None = None
    """How many pods there are, by their use. Left out: as many as the workload says."""
    disruption_budget: DisruptionBudget | None = None
    """How many pods evictions may take away at once. Left out: any number."""
    observability: Observability | None = None
    """Alert rules, scraping, traces and access logs."""


class PolicySpec(PolicySettings):
    """What a team promises for one workload, and how the traffic around it is shaped. What it leaves out its class fills."""

    class_name: DnsLabel | None = None
    """The PerformanceClass that fills what is left out and limits the rest. Left out: the default class."""
    workload: Workload
    """The pods the policy speaks about."""

    RULES = (
        Rule(
            cel="!has(self.workload.serviceRef) || !has(self.service)"
            " || (!has(self.service.port) && !has(self.service.targetPort) && !has(self.service.appProtocol))",
            holds=lambda spec: (
                spec.workload.service_ref is None
                or spec.service is None
                or not (spec.service.port or spec.service.target_port or spec.service.app_protocol)
            ),
            message="with workload.serviceRef only service.metricsPort is allowed: the ports are those of the existing Service",
            field="service",
        ),
    )


class PerformancePolicy(Wire):
    """A team's promise for one workload. It acts only in its own namespace."""

    metadata: Metadata
    spec: PolicySpec

    RULES = (
        Rule(
            cel=f"self.metadata.name.size() <= {POLICY_NAME_MAX}",
            holds=lambda policy: len(policy.metadata.name) <= POLICY_NAME_MAX,
            message=f"the name must have at most {POLICY_NAME_MAX} characters: objects derived from it carry suffixes",
        ),
        Rule(
            cel="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            holds=lambda policy: _is_service_name(policy.metadata.name),
            message="the name must be lower-case letters, digits and -, beginning with a letter: a Service is named after it",
        ),
    )


def _is_service_name(name: str) -> bool:
    plain = name.replace("-", "")
    return name == name.lower() and name.isascii() and plain.isalnum() and name[0].isalpha() and name[-1] != "-"


def parse_policy(obj: Mapping[str, Any]) -> PerformancePolicy:
    """A PerformancePolicy from a raw object; InvalidSpec carries every problem with its field path. The status is not read."""
    return parse(obj, PerformancePolicy, API_VERSION, POLICY_KIND)
