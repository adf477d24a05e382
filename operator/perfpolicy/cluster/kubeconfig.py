"""What the command line needs of a kubeconfig beyond credentials. Reads the user's file, nothing else."""

from pathlib import Path

from kubernetes.aio import config
from yaml import YAMLError

from perfpolicy.errors import SettingsError


def current_namespace(kubeconfig: Path | None) -> str:
    """The current context's namespace, as kubectl takes it; `default` where the context names none or there is no kubeconfig.

    Raises SettingsError where the file is there but is no kubeconfig.
    """
    try:
        _, active = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)  # type: ignore[no-untyped-call]
        return str((active or {}).get("context", {}).get("namespace") or "default")
    except config.ConfigException:
        return "default"
    except (YAMLError, AttributeError, TypeError) as error:  # the client takes the file's shape for granted
        name = str(kubeconfig) if kubeconfig else "the kubeconfig of $KUBECONFIG or ~/.kube/config"
        raise SettingsError(f"{name} is not a kubeconfig: {error}") from error
