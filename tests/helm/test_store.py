"""Where accounts, keys and usage are kept, and how the schema gets there."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from serving.cli import main as cli
from tests.helm.rendered import Object, Pod, Rendered, merged, render, scenario, scenario_values

# The objects that hold a router's files when its pod is gone.
OUTLIVES = {"persistentVolumeClaim", "hostPath"}


def mounted_at(pod: Pod, path: str) -> Object:
    """The volume that holds a path: that of the deepest mount above it."""
    above = [each for each in pod.main["volumeMounts"] if path.startswith(each["mountPath"] + "/")]
    mount = max(above, key=lambda each: len(each["mountPath"]))
    (volume,) = [each for each in pod.spec["volumes"] if each["name"] == mount["name"]]
    assert isinstance(volume, dict)
    return volume


def ref(secret: Object) -> Object:
    return {"secretKeyRef": {"name": secret["name"], "key": secret["key"]}}


def test_routers_have_the_store_of_the_values(rendered: Rendered) -> None:
    store = rendered.all_values["store"]
    (router,) = rendered.of("router")
    url = router.env("SERVING_STORE_URL")
    if store["type"] == "postgresql":
        assert url == ref(store["postgresql"]["secret"])
    elif store["type"] == "sqlite":
        path = url.removeprefix("sqlite:///")
        assert mounted_at(router, path).keys() & OUTLIVES
        # One file, on one node: all routers are beside each other.
        assert "podAffinity" in router.spec["affinity"]
    else:
        assert url is None
    for pod in rendered.of("engine"):
        assert pod.env("SERVING_STORE_URL") is None


def test_the_chart_makes_the_volume_of_sqlite() -> None:
    found = scenario("one-gpu")
    (router,) = found.of("router")
    volume = mounted_at(router, "/var/lib/serving/store.sqlite3")
    claim = found.kind("PersistentVolumeClaim")[volume["persistentVolumeClaim"]["claimName"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    size = found.all_values["store"]["sqlite"]["size"]
    assert claim["spec"]["resources"]["requests"]["storage"] == size


def test_a_given_volume_of_sqlite_is_used() -> None:
    change = {"store": {"sqlite": {"claim": "mine"}}}
    found = render(merged(scenario_values("one-gpu"), change))
    (router,) = found.of("router")
    volume = mounted_at(router, "/var/lib/serving/store.sqlite3")
    assert volume["persistentVolumeClaim"] == {"claimName": "mine"}
    assert not [name for name in found.kind("PersistentVolumeClaim") if name.endswith("-store")]


def test_a_journal_outlives_its_pod(rendered: Rendered) -> None:
    (router,) = rendered.of("router")
    wanted = rendered.all_values["ledger"]["mode"]
    by_store = {"postgresql": "store", "sqlite": "journal", "none": "off"}
    mode = by_store[rendered.all_values["store"]["type"]] if wanted == "auto" else wanted
    assert router.env("SERVING_LEDGER") == mode
    folder = router.env("SERVING_LEDGER_DIR")
    assert (folder is not None) is (mode == "journal")
    if folder:
        assert mounted_at(router, folder).keys() & OUTLIVES


def migrating(**postgresql: object) -> Rendered:
    change = {"store": {"postgresql": postgresql}}
    return render(merged(scenario_values("everything"), change))


def test_the_schema_is_brought_up_before_a_router_starts(everything: Rendered) -> None:
    (pod,) = everything.of("migration")
    job = everything.kind("Job")[pod.name]
    notes = job["metadata"]["annotations"]
    assert notes["helm.sh/hook"].split(",") == ["pre-install", "pre-upgrade"]
    # The next release's has the same name.
    assert "before-hook-creation" in notes["helm.sh/hook-delete-policy"].split(",")
    # As the user who may; routers then leave the schema alone.
    assert pod.env("SERVING_STORE_URL") == ref(
        everything.all_values["store"]["postgresql"]["migrateSecret"]
    )
    (router,) = everything.of("router")
    assert router.env("SERVING_STORE_MIGRATES") == "false"
    # It is a command that there is.
    program, *words = pod.main["command"]
    assert program == "serving"
    assert CliRunner().invoke(cli.main, [*words, "--help"]).exit_code == 0


def test_one_user_may_do_both() -> None:
    found = migrating(migrateSecret={"name": ""})
    (pod,) = found.of("migration")
    (router,) = found.of("router")
    assert pod.env("SERVING_STORE_URL") == router.env("SERVING_STORE_URL")


@pytest.mark.parametrize("store", ["postgresql", "sqlite", "none"])
def test_without_the_job_the_first_router_does_it(store: str) -> None:
    if store == "postgresql":
        found = migrating(migrate=False)
    else:
        change = {"store": {"type": store}, "ledger": {"mode": "auto"}}
        found = render(merged(scenario_values("everything"), change))
    assert not found.of("migration")
    (router,) = found.of("router")
    assert router.env("SERVING_STORE_MIGRATES") == (None if store == "none" else "true")
