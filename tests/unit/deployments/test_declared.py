"""Which clusters `serving apply` leaves alone, and what it says there."""

from __future__ import annotations

from deployments.declared import Declared, declared, unified
from tests.helm.rendered import scenario


def test_a_cluster_of_the_chart_is_declared() -> None:
    rendered = scenario("cpu-demo")
    configs = {each["name"]: each for each in rendered.serve["applications"]}
    assert declared(configs) == Declared(rendered.values["models"]["file"])
    # One of them is enough: the rest may have failed, or be on its way.
    for name, config in configs.items():
        assert declared({name: config}) == Declared(rendered.values["models"]["file"])


def test_a_cluster_where_others_declare_something_is_not() -> None:
    assert declared({}) is None
    other = {"name": "routers", "args": {"models_yaml": "models: []"}}
    assert declared({"routers": other, "a-model-": other}) is None


def test_a_file_that_is_declared_by_its_path_has_no_text_here() -> None:
    config = {"import_path": "deployments.app:build_router", "args": {"models": "/models.yaml"}}
    assert declared({"router": config}) == Declared("")
    # An application that is being deleted has no configuration any more.
    assert declared({"model-a": {}}) == Declared("")


def test_what_has_to_change_is_a_patch() -> None:
    old, new = "models:\n  - a\n  - b\n", "models:\n  - a\n  - c\n"
    assert unified(old, new, "m.yaml").splitlines() == [
        "--- serveConfigV2",
        "+++ m.yaml",
        "@@ -1,3 +1,3 @@",
        " models:",
        "   - a",
        "-  - b",
        "+  - c",
    ]
