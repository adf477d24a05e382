"""Half a day of what bench/rule_truth.py measures over a month: the budget's figures against what the pods really counted."""

import random
from pathlib import Path

import pytest

from bench import rule_truth, traffic
from bench.backfill import Past
from perfpolicy.promql import names
from tests import lab_tools

BEGIN, END = float(traffic.START), traffic.START + 12 * 3600.0


@pytest.mark.timeout(600)  # seconds of two idle cores, and minutes of two that thirty others use
def test_the_budget_is_the_truth_whatever_happens_to_traffic_scrapes_pods_and_labels(tmp_path: Path) -> None:
    dice = random.Random(traffic.START)  # noqa: S311  # a seed, no secret
    outages = traffic.short_outages(BEGIN, END, dice, every=1800)
    renamed = traffic.two_pods(BEGIN, END)
    for pod in renamed:
        pod.renamed = BEGIN + 6 * 3600
    # When a block of a policy of this name is due.
    missed = (BEGIN + 20_100 + 115,)
    services = (
        traffic.Service("scrapes", BEGIN, END, traffic.two_pods(BEGIN, END), outages, failed_scrapes=0.03, errors=0, born_late=True),
        traffic.Service("pods", BEGIN, END, traffic.churned(BEGIN, END, dice, 3 * 3600), outages, missed=(BEGIN + 20_000,)),
        traffic.Service("labels", BEGIN, END, renamed, outages),
        traffic.Service("missed", BEGIN, END, traffic.two_pods(BEGIN, END), missed=missed),
    )
    past = Past(tmp_path, lab_tools.required("prometheus", "prometheus"), lab_tools.required("prometheus", "promtool"))
    rule_truth.write(past, services, dice)
    rule_truth.record(past, services, rule_truth.NEEDED)
    with past.server() as prometheus:
        scrapes, pods, labels, late = (rule_truth.tell(prometheus, service) for service in services)
        at = late.service.end
        steps, blocks, found = (
            prometheus.value(f'{function}({series}{{policy="missed"}}[12h])', at)
            for function, series in (
                ("sum_over_time", names.JUDGED_STEP),
                ("sum_over_time", names.JUDGED_BLOCK),
                ("count_over_time", names.JUDGED_BLOCK),
            )
        )
    # Every first error of a series, every outage across a step's end, every scrape that failed.
    assert scrapes.service.failures > 1000
    assert abs(scrapes.ours) < 0.0005
    assert abs(scrapes.requests) < 0.0005
    # What a pod counted before its first scrape and after its last nobody knows; a missed evaluation loses one step of 1,440.
    assert abs(pods.ours) < 0.005
    assert abs(pods.requests) < 0.005
    # The one step across the change.
    assert abs(labels.ours) < 0.005
    assert abs(labels.requests) < 0.005
    # Its blocks hold every step that is there, and only once.
    assert found == (END - BEGIN - 600) // 300 - 1
    assert blocks == steps
    assert 0 < late.requests < 0.005
