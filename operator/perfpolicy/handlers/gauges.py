"""Gauges whose values are looked up when Prometheus scrapes."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from perfpolicy import __version__
from perfpolicy.handlers.lag import LoopLag
from perfpolicy.runtime import Runtime


class Gauges(Collector):
    """The state of one running operator. Queue and policies are the leader's: a standby works on nothing and says 0, or nothing."""

    def __init__(self, runtime: Runtime, lag: LoopLag) -> None:
        self._runtime, self._lag = runtime, lag

    def collect(self) -> Iterator[Metric]:
        """Every gauge, once per scrape."""
        runtime, leads = self._runtime, self._runtime.leads
        yield InfoMetricFamily("perfpolicy_build", "The operator's version.", {"version": __version__})
        yield GaugeMetricFamily("perfpolicy_leader", "1 where this replica leads, 0 where it stands by.", float(leads))
        yield GaugeMetricFamily("perfpolicy_loop_lag_seconds", "Longest delay of the event loop within the last minute.", self._lag.longest)
        yield GaugeMetricFamily("perfpolicy_queue_depth", "Policies waiting for a worker.", len(runtime.queue) if leads else 0)
        oldest = runtime.queue.oldest if leads else 0
        yield GaugeMetricFamily("perfpolicy_queue_oldest_seconds", "How long the policy has waited that waits longest.", oldest)
        ages = GaugeMetricFamily("perfpolicy_watch_age_seconds", "Time since a watch last heard anything, bookmarks too.", labels=["kind"])
        for kind, age in runtime.watch_ages().items():
            ages.add_metric([kind], age)
        yield ages
        policies = GaugeMetricFamily("perfpolicy_policies", "Policies by condition and its status.", labels=["condition", "status"])
        for (condition, status), count in runtime.conditions().items():
            policies.add_metric([condition, status], count)
        yield policies
