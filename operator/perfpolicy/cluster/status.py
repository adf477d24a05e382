"""Write a policy's status through its subresource, under a field manager of its own."""

from collections.abc import Mapping
from typing import Any

from perfpolicy.cluster.client import APPLY, METADATA, ApiClient
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import ApiRejected, ApiUnavailable
from perfpolicy.policy.model import PolicyKey
from perfpolicy.vocabulary import API_VERSION, FIELD_MANAGER, GROUP, POLICY_KIND, POLICY_PLURAL, VERSION

POLICIES = Resource(GROUP, VERSION, POLICY_KIND, POLICY_PLURAL)
_PARAMS = {"fieldManager": f"{FIELD_MANAGER}-status", "force": "true"}


class StatusWriter:
    """Applies whole statuses: fields that are left out are removed."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def write(self, key: PolicyKey, uid: str, status: Mapping[str, Any]) -> bool:
        """Apply the status of the policy with this UID; False where that policy is gone.

        Raises ApiUnavailable on a conflict: another policy stands there now, or somebody wrote in the same moment; both pass.
        """
        body = {"apiVersion": API_VERSION, "kind": POLICY_KIND, "metadata": {"name": key.name, "uid": uid}, "status": status}
        path = POLICIES.path(key.namespace, key.name, "status")
        try:
            await self._api.request("PATCH", path, params=_PARAMS, body=body, content_type=APPLY, accept=METADATA)
        except ApiRejected as error:
            if error.status == 404:
                return False
            if error.status == 409:
                raise ApiUnavailable(str(error)) from error
            raise
        return True
