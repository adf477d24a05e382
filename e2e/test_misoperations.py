"""Every leaf of a running policy changed (after Acto): refused with a word on why and nothing touched, or all children follow; and back.

What is changed comes from the CRD's own schema (tests/leaves.py; that each leaf shows, or why not: tests/test_every_leaf.py). Oracles:
consistency (the objects in the cluster are those the new spec renders to, no more and no fewer), recovery (the good spec again gives the
former objects), difference (a policy created afresh with that spec has the same objects; for one change of each leaf). `make trust` makes
every change there is, in an order that means nothing; without it a few are made, always the same ones.
"""

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.faulty_site import CLOCKS, DEPLOYMENT, SERVICE, Api, State, differences, inconsistent, ours, until
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import API_VERSION
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.status import POLICIES as POLICY
from perfpolicy.runtime import CLASSES
from tests.leaves import Change, Schema, changes, leaves, used
from tests.policy.support import a_raw_service, a_target
from tests.test_every_leaf import POLICIES, POLICY_SCHEMA, UNLIMITED

LANES = 4
"""Policies that are changed side by side, each in a namespace of its own."""
FEW = 4
"""Changes where a sample is enough."""
SEED = 7
NAME = "promise"
REPLICAS = "workload.deployment.replicas"
QUOTA = Resource("", "v1", "ResourceQuota", "resourcequotas")


def every_change() -> list[Change]:
    """Every change of every leaf, each in the first policy that says something about the leaf."""
    known, seen, found = frozenset(leaf for base in POLICIES for leaf in used(POLICY_SCHEMA, base)), frozenset[str](), []
    for base in POLICIES:
        found += [change for change in changes(POLICY_SCHEMA, base, known=known) if change.leaf not in seen]
        seen |= frozenset(used(POLICY_SCHEMA, base)) | (frozenset(leaves(POLICY_SCHEMA)) - known)
    return [_unscaled(change) if change.leaf == REPLICAS else change for change in found]


def _unscaled(change: Change) -> Change:
    """Of a policy without an autoscaler: beside one the figure counts once, when the Deployment is made."""
    before, after = ({name: value for name, value in spec.items() if name != "scaling"} for spec in (change.before, change.after))
    return change._replace(before=before, after=after)


@dataclass(frozen=True)
class Lane:
    """One namespace with one policy that is changed again and again."""

    api: Api
    namespace: str
    class_name: str

    async def prepare(self) -> None:
        """Make what policies refer to: a workload and Services."""
        selectors = {"shop": {"app": "shop"}, "alpha": {"app": "shop", "version": "stable"}, "beta": {"app": "beta"}}
        labels = {"istio-injection": "enabled", "team": "shops"}
        await self._make("/api/v1/namespaces/", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": labels}}, self.namespace)
        for name, selector in selectors.items():
            await self._make(SERVICE.path(self.namespace) + "/", a_raw_service(name, selector=selector), name)
        await self._make(DEPLOYMENT.path(self.namespace) + "/", a_target(replicas=0), "shop")
        # Whatever number of replicas a spec asks for.
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {}, "spec": {"hard": {"pods": "0"}}}
        await self._make(QUOTA.path(self.namespace) + "/", quota, "no-pods")

    async def _make(self, path: str, manifest: dict[str, Any], name: str) -> None:
        manifest["metadata"] |= {"name": name}
        status, answer = await self.api.apply(manifest, f"{path}{name}")
        assert status in (200, 201), answer

    async def write(self, spec: Mapping[str, Any], name: str = NAME, *, dry: bool = False) -> tuple[int, str]:
        """Write the policy; the status of the answer and what it says."""
        # Hosts are claimed in the whole cluster: each lane has its own. The only class there is stands for what the generator calls alpha.
        named = {**spec, "className": self.class_name} if spec.get("className", "alpha") == "alpha" else spec
        own = json.loads(json.dumps(named).replace("example.com", f"{self.namespace}.example.com"))
        manifest = {"apiVersion": API_VERSION, "kind": "PerformancePolicy", "metadata": {"name": name}, "spec": own}
        path = POLICY.path(self.namespace, name)
        status, answer = await self.api.apply(manifest, f"{path}?dryRun=All" if dry else path)
        return status, str(answer.get("message", ""))

    async def judged(self, name: str = NAME) -> tuple[bool, str]:
        """Wait until the policy is judged in its current generation; whether it is accepted, and what is said of that."""
        found: dict[str, Any] = {}

        async def complaint() -> str:
            policy = await self.api.get(POLICY.path(self.namespace, name))
            found.update({each["type"]: each for each in policy["status"]["conditions"]})
            accepted, programmed = found["Accepted"], found.get("Programmed", {})
            current = accepted["observedGeneration"] == policy["metadata"]["generation"]
            is_over = accepted["status"] == "False" or programmed.get("status") == "True"
            return "" if current and is_over else f"{name} is not judged: {found}"

        await until(complaint, 60)
        return found["Accepted"]["status"] == "True", found["Accepted"]["message"]

    async def children(self) -> State:
        """All children."""
        return {key: child for key, child in (await self.api.state(self.namespace)).items() if not key.startswith("PerformancePolicy/")}

    async def change(self, change: Change, *, afresh: bool) -> str:
        """Make one change and take it back; what was wrong, empty where nothing was. `afresh`: compare with a new policy, too."""
        try:
            await self._become(change.before)
            good = await self.children()
            status, message = await self.write(change.after)
            if status == 200:
                accepted, message = await self.judged()
                if accepted:
                    assert await inconsistent(self.api, self.namespace, NAME) == []
                    # One that only observes, or is suspended, has what it had before, and a new one would not.
                    if afresh and (change.after.get("mode"), change.after.get("suspend")) not in (("Observe", None), (None, "All")):
                        await self._same_afresh(change.after)
                else:
                    assert differences(good, await self.children()) == [], "refused, and something was touched"
            assert status == 200 or "spec" in message, f"{status} says nothing of the spec: {message}"
            await self._become(change.before)
            assert differences(good, await self.children()) == [], "the former spec does not give the former objects"
        except (AssertionError, KeyError) as error:
            return f"{self.namespace}: {change.leaf} {differences(change.before, change.after)}: {error!r}"
        return ""

    async def _become(self, spec: Mapping[str, Any]) -> None:
        status, message = await self.write(spec)
        assert status in (200, 201), message
        accepted, message = await self.judged()
        assert accepted, message

    async def _same_afresh(self, spec: Mapping[str, Any]) -> None:
        """A policy that never was anything else has the same children."""
        changed = await self.children()
        await self.api.delete(POLICY.path(self.namespace, NAME))

        async def gone() -> str:
            left = ours(await self.children())
            return f"left behind: {left}" if left else ""

        await until(gone, 60)
        await self._become(spec)
        assert differences(changed, await self.children()) == [], "created afresh it has other objects"


@asynccontextmanager
async def lanes(cluster: Cluster, folder: Path, count: int) -> AsyncIterator[list[Lane]]:
    """Lanes with an operator for them, and a class that allows everything."""
    api, run = Api(cluster.lab), f"mis-{secrets.token_hex(3)}"
    selector = {"selector": {"matchLabels": {"team": "shops"}}}
    grants = [{**UNLIMITED["grants"][0], "namespaces": selector}]
    spec = {**UNLIMITED, "allowedNamespaces": selector, "grants": grants, "metrics": {"address": "http://127.0.0.1:9"}}
    made = [Lane(api, f"{run}-{number}", run) for number in range(count)]
    cluster.apply({"apiVersion": API_VERSION, "kind": "PerformanceClass", "metadata": {"name": run}, "spec": spec})
    settings = {**CLOCKS, "resync": "1800", "namespaces": ",".join(lane.namespace for lane in made)}
    log = folder / "operator.log"
    process = OperatorProcess(cluster.lab, log, free_port(), PROGRAM, **settings)
    try:
        await asyncio.gather(*(lane.prepare() for lane in made))
        await asyncio.to_thread(process.start)
        yield made
        assert process.running
    except BaseException:
        print(f"--- operator log\n{log.read_text()[-5000:]}")
        raise
    finally:
        await asyncio.to_thread(process.kill)
        await asyncio.gather(*(api.delete(f"/api/v1/namespaces/{lane.namespace}") for lane in made))
        await api.delete(CLASSES.path(None, run))
        await api.close()


@pytest.mark.timeout(6 * 3600)
async def test_every_change_is_refused_with_a_reason_or_followed_and_can_be_taken_back(
    cluster: Cluster, tmp_path: Path, trust: bool
) -> None:
    every = every_change()
    assert {change.leaf for change in every} >= set(leaves(POLICY_SCHEMA)), "leaves that are never changed"
    random.Random(SEED).shuffle(every)  # noqa: S311 - an order, not a secret
    chosen = every if trust else every[:FEW]
    first = {change.leaf: change for change in reversed(chosen)}
    waiting, problems, done = iter(chosen), list[str](), 0
    async with lanes(cluster, tmp_path, LANES) as made:

        async def walk(lane: Lane) -> None:
            nonlocal done
            for change in waiting:
                problem = await lane.change(change, afresh=first[change.leaf] is change)
                problems.extend([problem] if problem else [])
                done += 1
                if problem or done % 100 == 0:
                    print(f"{done} of {len(chosen)} changes, {len(problems)} with problems. {problem}", flush=True)

        await asyncio.gather(*map(walk, made))
    print(f"{len(chosen)} of {len(every)} changes of {len(first)} leaves, blocks and lists")
    assert problems == [], "\n\n".join(problems)


def wrong(schema: Schema, value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(leaf, the value with that leaf of a wrong type, or beyond its bounds)."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            if name in value:
                yield from ((leaf, {**value, name: bad}) for leaf, bad in wrong(child, value[name], f"{path}.{name}" if path else name))
    elif schema.get("type") == "array":
        yield f"{path}[]", {"not": "a list"}
        yield f"{path}[]", value * (schema["maxItems"] + 1)
        for index, item in enumerate(value):
            yield from ((leaf, [*value[:index], bad, *value[index + 1 :]]) for leaf, bad in wrong(schema["items"], item, f"{path}[]"))
    elif "additionalProperties" in schema:
        yield f"{path}.*", {key: {"not": "text"} for key in value}
        yield f"{path}.*", {f"key-{number}": "x" for number in range(schema["maxProperties"] + 1)}
    elif schema.get("x-kubernetes-preserve-unknown-fields"):
        yield path, "not an object"
    else:
        yield path, {"not": "a scalar"}
        yield path, schema.get("maximum", 999_999) + 1 if schema.get("type") == "integer" else "x" * (schema.get("maxLength", 1000) + 1)


def every_wrong() -> list[tuple[str, Any]]:
    """Every leaf made wrong, in each policy that says something about it; where none does, in one that was changed to do so."""
    found = [case for base in POLICIES for case in wrong(POLICY_SCHEMA, base)]
    known = {leaf for leaf, _ in found}
    others = {change.leaf: change.after for change in every_change() if change.leaf not in known}
    return found + [case for base in others.values() for case in wrong(POLICY_SCHEMA, base) if case[0] not in known]


async def test_a_leaf_of_a_wrong_type_or_beyond_its_bounds_is_refused_by_name(cluster: Cluster, trust: bool) -> None:
    every = every_wrong()
    assert {leaf for leaf, _ in every} >= set(leaves(POLICY_SCHEMA)), "leaves that are never wrong"
    chosen = every if trust else random.Random(SEED).sample(every, 100)  # noqa: S311 - a choice, not a secret
    api = Api(cluster.lab)
    lane = Lane(api, f"mis-{secrets.token_hex(3)}", "any")
    room = asyncio.Semaphore(8)

    async def refused(leaf: str, bad: Any) -> str:
        async with room:
            status, message = await lane.write(bad, dry=True)
        name = leaf.replace("[]", "").replace(".*", "").rpartition(".")[2]
        # A wrong type answers 500: it is found where server-side apply reads the object, before its schema is asked.
        return "" if status in (400, 422, 500) and name in message else f"{leaf}: {status} {message[:300]}"

    try:
        await lane.prepare()
        found = await asyncio.gather(*(refused(leaf, bad) for leaf, bad in chosen))
    finally:
        await api.delete(f"/api/v1/namespaces/{lane.namespace}")
        await api.close()
    print(f"{len(chosen)} of {len(every)} wrong values refused by name")
    assert not any(found), "\n".join(filter(None, found))
