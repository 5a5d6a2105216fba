"""Where engines keep weights, and the job that fetches them."""

from __future__ import annotations

import shlex

import pytest

from tests.helm.rendered import Object, Pod, Rendered, merged, render, scenario_values

CACHES: dict[str, tuple[Object, Object]] = {
    "emptyDir": ({"size": "9Gi"}, {"emptyDir": {"sizeLimit": "9Gi"}}),
    "hostPath": (
        {"hostPath": "/mnt/weights"},
        {"hostPath": {"path": "/mnt/weights", "type": "DirectoryOrCreate"}},
    ),
    "claim": ({"claim": "weights"}, {"persistentVolumeClaim": {"claimName": "weights"}}),
    "create": (
        {"size": "9Gi", "storageClass": "shared", "accessMode": "ReadWriteMany"},
        {"persistentVolumeClaim": {"claimName": "llm-cache"}},
    ),
}


def with_cache(kind: str, **more: object) -> Rendered:
    own, _ = CACHES[kind]
    values = scenario_values("everything")
    del values["cache"]["claim"]
    download = kind in ("claim", "create")
    cache = {"type": kind, "download": download, **own, **more}
    return render(merged(values, {"cache": cache}))


def volume_at(pod: Pod, path: str) -> Object:
    (mount,) = [each for each in pod.main["volumeMounts"] if each["mountPath"] == path]
    assert not mount.get("readOnly")
    (volume,) = [each for each in pod.spec["volumes"] if each["name"] == mount["name"]]
    return {name: part for name, part in volume.items() if name != "name"}


@pytest.mark.parametrize("kind", CACHES)
def test_engines_keep_weights_where_the_values_say(kind: str) -> None:
    rendered = with_cache(kind)
    _, wanted = CACHES[kind]
    for pod in rendered.of("engine"):
        assert volume_at(pod, pod.env("HF_HOME")) == wanted
    claims = rendered.kind("PersistentVolumeClaim")
    assert set(claims) == ({"llm-cache"} if kind == "create" else set())
    for claim in claims.values():
        assert claim["spec"] == {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "shared",
            "resources": {"requests": {"storage": "9Gi"}},
        }


def test_the_job_fetches_into_the_cache_of_the_engines(rendered: Rendered) -> None:
    downloads, engines = rendered.of("download"), rendered.of("engine")
    wanted = rendered.all_values["cache"]["download"] and rendered.values["models"]["repositories"]
    assert len(downloads) == bool(wanted)
    for pod in downloads:
        assert {str(volume_at(each, each.env("HF_HOME"))) for each in (pod, *engines)} == {
            str(volume_at(pod, "/var/cache/huggingface"))
        }
        # The same token, and what it fetches is to be read by them.
        assert pod.env("HF_TOKEN") == engines[0].env("HF_TOKEN")
        users = {each.spec["securityContext"]["runAsUser"] for each in (pod, *engines)}
        assert len(users) == 1


def test_the_job_fetches_every_repository_of_the_models(rendered: Rendered) -> None:
    """At the revision that the models file pins."""
    for pod in rendered.of("download"):
        wanted = []
        for each in rendered.values["models"]["repositories"]:
            pinned = ["--revision", each["revision"]] if each["revision"] else []
            wanted.append(["hf", "download", each["id"], *pinned])
        assert commands(pod) == wanted
        # One that fails ends the job, which then tries again.
        assert pod.main["command"] == ["bash", "-euc"]


def commands(pod: Pod) -> list[list[str]]:
    return [shlex.split(line) for line in pod.main["args"][0].splitlines() if line.strip()]


def test_a_pinned_revision_is_fetched() -> None:
    pinned = [{"id": "our/model", "revision": "refs/pr/1"}, {"id": "it's/odd", "revision": ""}]
    values = merged(scenario_values("everything"), {"models": {"repositories": pinned}})
    (pod,) = render(values).of("download")
    assert commands(pod) == [
        ["hf", "download", "our/model", "--revision", "refs/pr/1"],
        ["hf", "download", "it's/odd"],
    ]


def test_other_models_make_another_job() -> None:
    """A Job's template cannot be changed, and an upgrade would fail at it."""

    def name(repositories: list[Object]) -> str:
        models = {"models": {"repositories": repositories}}
        (pod,) = render(merged(scenario_values("everything"), models)).of("download")
        return pod.name

    first = [{"id": "our/model", "revision": ""}]
    assert name(first) == name(first)
    assert name(first) != name([{"id": "our/model", "revision": "v2"}])


@pytest.mark.parametrize("offline", [True, False])
def test_engines_fetch_nothing_where_all_is_there(offline: bool) -> None:
    for pod in with_cache("claim", offline=offline).of("engine"):
        assert pod.env("HF_HUB_OFFLINE") == ("1" if offline else "0")


def test_more_volumes_are_read_only_in_every_engine() -> None:
    volumes = [
        {"name": "ours", "mountPath": "/models", "claim": "our-models"},
        {"name": "theirs", "mountPath": "/theirs", "hostPath": "/mnt/theirs"},
    ]
    sources = [
        {"persistentVolumeClaim": {"claimName": "our-models", "readOnly": True}},
        {"hostPath": {"path": "/mnt/theirs", "type": "Directory"}},
    ]
    for pod in with_cache("claim", volumes=volumes).of("engine"):
        for volume, source in zip(volumes, sources, strict=True):
            (mount,) = [
                each
                for each in pod.main["volumeMounts"]
                if each["mountPath"] == volume["mountPath"]
            ]
            assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
            assert {"name": volume["name"], **source} in pod.spec["volumes"]
