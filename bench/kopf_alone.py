"""`python -m bench.kopf_alone KUBECONFIG COUNT`: kopf as the operator sets it up, with handlers that do nothing: its own share of memory.

Prints the bytes it takes when it knows COUNT policies, beyond those it began with.
"""

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any

import kopf

from e2e.operator_process import resident_bytes
from perfpolicy.cluster.client import ApiClient
from perfpolicy.handlers.events import connection, kopf_settings
from perfpolicy.settings import Settings
from perfpolicy.vocabulary import GROUP, POLICY_PLURAL, VERSION


def resident() -> int:
    """Bytes of memory in use."""
    gc.collect()
    return resident_bytes(os.getpid())


async def share(kubeconfig: Path, count: int) -> int:
    """Bytes."""
    client = await ApiClient.connect(Settings(kubeconfig=kubeconfig))
    found = await client.credentials()
    await client.close()
    handlers, seen, enough = kopf.OperatorRegistry(), set[str](), asyncio.Event()

    @kopf.on.login(registry=handlers)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return connection(found)

    @kopf.on.event(GROUP, VERSION, POLICY_PLURAL, registry=handlers)
    async def policy(uid: str, **_: Any) -> None:
        seen.add(uid)
        if len(seen) >= count:
            enough.set()

    identity: Any = "bench"
    before, over = resident(), asyncio.Event()
    running = asyncio.create_task(
        kopf.operator(registry=handlers, settings=kopf_settings(45), standalone=True, clusterwide=True, identity=identity, stop_flag=over)
    )
    await asyncio.wait_for(enough.wait(), 600)
    # Its worker of each object ends after some idle seconds.
    await asyncio.sleep(10)
    after = resident()
    over.set()
    await running
    return after - before


if __name__ == "__main__":
    print(asyncio.run(share(Path(sys.argv[1]), int(sys.argv[2]))))
