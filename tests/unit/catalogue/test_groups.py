"""Worker groups: which pods a models file needs, and that their list stays as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

from serving.catalogue.groups import Group, GroupError, group_models
from serving.catalogue.load import load_text
from serving.catalogue.plan import Plan, plan

FILE = """\
models:
  - llama-3-8b-instruct
  - {id: mixtral-8x7b, replicas: 2}
  - {id: mistral-7b, replicas: 3, min_replicas: 0, cpus: 2}
  - {id: tiny, weights: /opt/tiny, context: 128, gpus: 0, cpus: 0.5}
"""


def planned(text: str = FILE) -> Plan:
    return plan(load_text(text).engines)


def groups(text: str = FILE, own: Mapping[str, str] | None = None) -> dict[str, Group]:
    return {group.name: group for group in group_models(planned(text), own)}


def gpus_by_memory(found: Iterable[Group]) -> Counter[float | None]:
    """As `Plan.gpus`."""
    gpus: Counter[float | None] = Counter()
    for group in found:
        if group.gpus and group.replicas:
            gpus[group.gpu_memory_gib] += group.gpus * group.replicas
    return gpus


def test_models_of_one_size_share_a_group() -> None:
    found = groups()
    assert list(found) == ["gpu-1x24", "gpu-2x80", "cpu-500m"]
    shared = found["gpu-1x24"]
    assert shared.models == ("llama-3-8b-instruct", "mistral-7b")
    assert (shared.replicas, shared.always, shared.gpus, shared.cpus) == (4, 1, 1, 2)


def test_the_groups_have_the_gpus_of_the_plan() -> None:
    assert gpus_by_memory(groups().values()) == planned().gpus == {24: 4, 80: 4}


def test_a_pods_memory_holds_what_passes_through_it() -> None:
    found = groups()
    # 4 for the pod, 4 for each process, and one GPU's weights: 15.0 and 43.5 GiB.
    assert found["gpu-1x24"].memory_gib == 23
    assert found["gpu-2x80"].memory_gib == 56
    # On a CPU: weights of unknown size, and vLLM's cache.
    assert found["cpu-500m"].memory_gib == 16


def test_a_model_may_have_a_group_of_its_own() -> None:
    found = groups(own={"mistral-7b": "urgent"})
    assert found["urgent"].models == ("mistral-7b",)
    assert found["gpu-1x24"].models == ("llama-3-8b-instruct",)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"none": "a"}, "no engine model is called 'none'"),
        ({"mistral-7b": "router"}, "'router' is no name for a group"),
        ({"mistral-7b": "A_b"}, "'A_b' is no name for a group"),
        ({"mistral-7b": "gpu-2x80"}, "need different GPUs"),
    ],
)
def test_what_cannot_be_grouped(own: dict[str, str], message: str) -> None:
    with pytest.raises(GroupError, match=message):
        group_models(planned(), own)


def test_groups_keep_their_places_and_new_ones_come_last() -> None:
    before = group_models(planned())
    after = planned("models: [{id: falcon-40b}, {id: mixtral-8x22b-instruct}, {id: falcon-7b}]")
    found = group_models(after, before=before)
    assert [group.name for group in found] == ["gpu-1x24", "gpu-2x80", "cpu-500m", "gpu-8x80"]
    assert [group.replicas for group in found] == [1, 1, 0, 1]
    assert found[2].models == ()
