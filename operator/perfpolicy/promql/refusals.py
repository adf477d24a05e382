"""Proxies that refused the newest listeners istiod sent, where a policy configures them: of one filter Envoy cannot read, the policy's or
somebody else's, the whole listener is refused.

Envoy counts refusals and says when it last accepted; nothing tells which came last. So a proxy is taken to refuse from a step in which it
did and accepted nothing (or did both, and clusters have gone on to a version that listeners have not), or when it never accepted any,
until it accepts something: that moves the time which the rule itself keeps.
"""

from collections.abc import Iterator
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.expr import Expr, aggregate, binary, call, number
from perfpolicy.promql.rule import Rule, own, record
from perfpolicy.promql.scope import of_pods

ACCEPTED_AT: Final = "envoy_listener_manager_lds_update_time"
"""When a proxy last accepted what istiod sent, ms since 1970; 0: never."""
REFUSED: Final = "envoy_listener_manager_lds_update_rejected"
LISTENERS: Final = "envoy_listener_manager_lds_version"
"""Hash of the version of listeners it last accepted, and of clusters."""
CLUSTERS: Final = "envoy_cluster_manager_cds_version"
_REMEMBERED_STEPS: Final = 3
"""Steps Prometheus may miss without forgetting who refuses."""


def refusals(policy: model.Policy) -> Iterator[Rule]:
    """The proxies that refuse, and how many they are: 0 where all accept, absent where none says anything."""
    if policy.traffic.proxy == model.Proxy():
        return
    accepted, before = _newest(policy, ACCEPTED_AT), _newest(policy, ACCEPTED_AT, earlier=True)
    refused = _newest(policy, REFUSED)
    # Envoy's counters may appear with their first increase.
    already = _newest(policy, REFUSED, earlier=True).otherwise(before * number(0))
    behind = binary(_newest(policy, LISTENERS), "!=", _newest(policy, CLUSTERS))
    now = refused.above(already).also(binary(accepted, "==", before).otherwise(behind))
    never = binary(accepted, "==", number(0)).also(refused.above(0))
    kept = call("last_over_time", own(policy, names.REFUSED_AT).over(policy.metrics.provider.rule_interval * _REMEMBERED_STEPS))
    still = binary(accepted, "==", aggregate("max", kept, ("pod",)))
    yield record(policy, names.REFUSED_AT, accepted.also(now).otherwise(never).otherwise(still))
    count = aggregate("count", own(policy, names.REFUSED_AT).instant())
    yield record(policy, names.REFUSED, count.otherwise(aggregate("count", accepted) * number(0)))


def _newest(policy: model.Policy, metric: str, earlier: bool = False) -> Expr:
    """What the workload's proxies say, now or one step earlier, by `pod`; two failed scrapes in a row are bridged."""
    provider = policy.metrics.provider
    selector = of_pods(policy, metric)
    samples = (selector.back(provider.rule_interval) if earlier else selector).over(provider.rule_interval + provider.scrape_interval * 2)
    return aggregate("max", call("last_over_time", samples), ("pod",))
