"""Settings: documented, defaulted, and refused with every problem at once."""

import pytest

from perfpolicy.errors import SettingsError
from perfpolicy.settings import PREFIX, Settings, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults_need_nothing_set() -> None:
    settings = load_settings()
    assert (settings.poll_min, settings.poll_max, settings.poll_factor) == (5, 30, 1.2)
    assert settings.namespaces == ()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFPOLICY_NAMESPACES", "a, b,")
    monkeypatch.setenv("PERFPOLICY_WORKERS", "3")
    monkeypatch.setenv("PERFPOLICY_LOG_FORMAT", "text")
    monkeypatch.setenv("PERFPOLICY_KUBECONFIG", "")
    settings = load_settings()
    assert settings.namespaces == ("a", "b")
    assert settings.workers == 3
    assert settings.log_format == "text"
    assert settings.kubeconfig is None


def test_every_problem_is_told_at_once_by_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFPOLICY_WORKERS", "0")
    monkeypatch.setenv("PERFPOLICY_NAMESPACES", "Not_A_Namespace,*")
    monkeypatch.setenv("PERFPOLICY_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for name in ("PERFPOLICY_WORKERS", "PERFPOLICY_NAMESPACES", "PERFPOLICY_LOG_LEVEL"):
        assert name in str(caught.value)
    assert "Not_A_Namespace, *" in str(caught.value)


def test_bounds_must_be_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFPOLICY_POLL_MIN", "60")
    monkeypatch.setenv("PERFPOLICY_RETRY_MAX", "0.1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "PERFPOLICY_POLL_MIN (60) must not exceed PERFPOLICY_POLL_MAX (30)" in str(caught.value)
    assert "PERFPOLICY_RETRY_MIN (0.5) must not exceed PERFPOLICY_RETRY_MAX (0.1)" in str(caught.value)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_means(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert len(description) > 30


def test_every_time_says_its_unit() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation is float and name != "poll_factor" and not name.endswith("_per_second"):
            assert "econds" in (field.description or ""), name


def test_a_leader_must_stop_before_others_may_start_and_have_time_to_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFPOLICY_LEASE_DURATION", "10")
    monkeypatch.setenv("PERFPOLICY_LEASE_RETRY", "10")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "PERFPOLICY_LEASE_RENEW_DEADLINE (10) must be below PERFPOLICY_LEASE_DURATION (10)" in str(caught.value)
    assert "PERFPOLICY_LEASE_RETRY (10) must be below PERFPOLICY_LEASE_RENEW_DEADLINE (10)" in str(caught.value)


@pytest.mark.parametrize("name", ["A_Lease", "-x", "x/y"])
def test_a_lease_is_named_as_kubernetes_names_things(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PERFPOLICY_LEASE", name)
    with pytest.raises(SettingsError, match="PERFPOLICY_LEASE"):
        load_settings()
