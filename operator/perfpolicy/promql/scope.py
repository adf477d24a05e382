"""Which raw series may be a policy's: those of its own pods, in its namespace, in its cluster. Shared by all sources."""

from collections.abc import Iterable
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql.expr import Matcher, Op, Selector, literal_pattern

# Pod suffixes use no vowels and no 0, 1, 3 (apimachinery's SafeEncodeString), so `api` never matches a pod of `api-gateway`.
_SAFE: Final = "[bcdfghjklmnpqrstvwxz2456789]"
_GENERATE_NAME_MAX: Final = 58


def own_namespace(policy: model.Policy) -> Matcher:
    """The label Prometheus sets from the pod it scraped: what else a series says of itself, any pod can say."""
    return Matcher("namespace", Op.EQ, policy.key.namespace)


def own_pods(policy: model.Policy) -> tuple[Matcher, ...]:
    """The workload's pods, by name."""
    return own_namespace(policy), Matcher("pod", Op.RE, _pod_pattern(policy.workload))


def of_pods(policy: model.Policy, metric: str, *matchers: Matcher) -> Selector:
    """A metric's series of the workload's pods."""
    return Selector(metric, (*own_pods(policy), *matchers, *there(policy)))


def containers(policy: model.Policy, metric: str) -> Selector:
    """cAdvisor series of the workload's application container, one or more per pod."""
    return of_pods(policy, metric, Matcher("container", Op.EQ, policy.workload.container))


def there(policy: model.Policy) -> tuple[Matcher, ...]:
    """The class's matchers, or their labels absent: a Prometheus of one cluster does not put its external labels on what it scrapes, while
    one of several clusters holds series of the others beside ours.
    """
    return tuple(
        Matcher(label, Op.RE, f"{literal_pattern(value)}|") if value else Matcher(label, Op.EQ, "")
        for label, value in policy.metrics.provider.matchers
    )


def code_pattern(codes: Iterable[str], classes: bool = False) -> str:
    """A regular expression for HTTP codes and classes (`5xx`); `classes`: of a label whose value may be a class, too."""
    digit = "([0-9]|x)" if classes else "[0-9]"
    return "|".join(code.lower().replace("x", digit) for code in codes)


def _pod_pattern(workload: model.Workload) -> str:
    name = literal_pattern(workload.name)
    if workload.kind == "StatefulSet":
        return f"{name}-[0-9]+"
    if workload.kind == "DaemonSet":
        if len(workload.name) + 1 <= _GENERATE_NAME_MAX:
            return f"{name}-{_SAFE}{{5}}"
    elif len(workload.name) + 12 <= _GENERATE_NAME_MAX:
        return f"{name}-{_SAFE}{{1,10}}-{_SAFE}{{5}}"
    # The API server cuts a generated name's base, hash and all.
    return f"{literal_pattern(workload.name[: _GENERATE_NAME_MAX - 1])}.*"
