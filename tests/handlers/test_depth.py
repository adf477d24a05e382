"""An object as deep as the API server accepts passes through everything objects pass through, in every thread of the operator.

In a process of its own: the limits are the process', and a stack that is too small ends it.
"""

import subprocess
import sys

import pytest

_WORK = """
import asyncio, copy, json, threading
from perfpolicy.handlers.depth import allow_deep_objects
from perfpolicy.reconcile.policies import Policies

DEPTH = 9_990
DEEP = '{"a":' * DEPTH + "1" + "}" * DEPTH
META = '{"namespace":"ns","name":"deep","uid":"u","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z"}'
RAW = '{"metadata":%s,"spec":{"workload":{"deployment":{"template":%s}}}}' % (META, DEEP)

def work():
    raw = json.loads(RAW)
    assert json.loads(json.dumps(raw)) == raw == copy.deepcopy(raw)
    told = []
    policies = Policies(told.append)
    policies.put(raw)
    known = policies.get(told[0])
    assert known.raw()["spec"] == raw["spec"]

async def in_a_loop():
    work()
    await asyncio.to_thread(work)

def in_a_thread():
    asyncio.run(in_a_loop())
    done.append("thread")

done = []
"""
_CALLS = """
kopf = threading.Thread(target=in_a_thread)
kopf.start()
kopf.join()
work()
asyncio.run(in_a_loop())
print(*done, "main")
"""


@pytest.mark.parametrize(("call", "survives"), [("allow_deep_objects()", True), ("", False)])
def test_deep_objects_pass_only_where_room_was_made(call: str, survives: bool) -> None:
    done = subprocess.run([sys.executable, "-c", f"{_WORK}\n{call}\n{_CALLS}"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0, done.stdout.strip()) == (survives, "thread main" if survives else ""), done.stderr[-2000:]
    assert survives or "RecursionError" in done.stderr
