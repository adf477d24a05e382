"""`helm test`: applies one policy that only observes, waits until the operator calls it Ready, and takes it away again.

Environment: NAMESPACE, NAME, SECONDS. The policy is the manifest beside this file.
"""

import json
import os
import pathlib
import sys

from kubernetes import client, config, watch

NAMESPACE, NAME, SECONDS = os.environ["NAMESPACE"], os.environ["NAME"], int(os.environ["SECONDS"])
PLACE = {"group": "perfpolicy.io", "version": "v1alpha1", "namespace": NAMESPACE, "plural": "performancepolicies"}


def main() -> int:
    config.load_incluster_config()
    api = client.CustomObjectsApi()
    manifest = json.loads(pathlib.Path(__file__).with_name("policy.json").read_text())
    try:
        api.delete_namespaced_custom_object(**PLACE, name=NAME)  # what an interrupted test left
    except client.ApiException as error:
        if error.status != 404:
            raise
    api.create_namespaced_custom_object(**PLACE, body=manifest)
    try:
        said = {}
        seen = watch.Watch().stream(
            api.list_namespaced_custom_object, **PLACE, field_selector=f"metadata.name={NAME}", timeout_seconds=SECONDS
        )
        for event in seen:
            conditions = event["object"].get("status", {}).get("conditions", [])
            said = {one["type"]: one for one in conditions}
            if event["type"] != "DELETED" and said.get("Ready", {}).get("status") == "True":
                print(f"{NAMESPACE}/{NAME} is Ready: {said['Ready']['message']}")
                return 0
        print(f"{NAMESPACE}/{NAME} is not Ready after {SECONDS} s")
        for one in said.values():
            print(f"  {one['type']}={one['status']} {one['reason']}: {one['message']}")
        return 1
    finally:
        api.delete_namespaced_custom_object(**PLACE, name=NAME)


sys.exit(main())
