"""docs/kubernetes.md says what the chart, the commands and the makefile do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from click.testing import CliRunner

from docs import chart
from serving.cli import main as cli
from tests.helm.rendered import (
    CHART,
    DEFAULTS,
    ROOT,
    SCENARIOS,
    Rendered,
    merged,
    render,
    scenario,
)

FILE = ROOT / "docs" / "kubernetes.md"
TEXT = FILE.read_text()
INSTALL = TEXT.split("\n## Install\n")[1].split("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """The commands of its console blocks, as a shell splits them."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), line
            found.append(shlex.split(line.removeprefix("$ ")))
    return found


def option(command: list[str], *names: str) -> list[str]:
    return [word for at, word in enumerate(command[1:]) if command[at] in names]


def test_it_is_installed_in_five_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is run, and the fourth is what Helm's engine then renders."""
    operator, plan, namespace, install, test = commands(INSTALL)

    # Of a repository by its address: a name would have to be added first.
    assert operator[:3] == ["helm", "install", "kuberay-operator"]
    assert option(operator, "--repo") == ["https://ray-project.github.io/kuberay-helm/"]
    assert option(operator, "--version") == ["1.7.0"]

    assert (plan[:2], plan[3]) == (["serving", "render-values"], ">")
    monkeypatch.chdir(tmp_path)
    Path(plan[2]).write_text((CHART / "scenarios" / "cpu-demo" / "models.yaml").read_text())
    done = CliRunner().invoke(cli.main, plan[1:3])
    assert done.exit_code == 0, done.output
    Path(plan[4]).write_text(done.stdout)

    files = option(install, "-f")
    assert files[0] == plan[4]
    Path(files[1]).write_text((CHART / "scenarios" / "cpu-demo" / "values.yaml").read_text())
    values: list[Any] = [yaml.safe_load(Path(file).read_text()) for file in files]
    values += [helm_python.parse_set_string(each) for each in option(install, "--set")]
    assert install[:3] == ["helm", "upgrade", "--install"]
    name, folder = install[3:5]
    assert ROOT / folder == CHART
    with helm_python.Chart.load(CHART) as loaded:
        (space,) = option(install, "-n")
        rendered = loaded.render(merged(*values), name=name, namespace=space)
    assert namespace == ["kubectl", "create", "namespace", space]
    # The test is of that release, and the chart has one.
    assert test[:3] == ["helm", "test", name]
    assert option(test, "-n") == [space]
    assert "helm.sh/hook: test" in rendered["serving/templates/tests/completion.yaml"]
    # The pods' image is the one that the document builds.
    built = next(each for each in commands(TEXT) if each[:2] == ["make", "image"])
    images = set(re.findall(r"image: (\S+)", "".join(rendered.values())))
    assert [f"TAG={image}" for image in images] == [
        each for each in built if each.startswith("TAG=")
    ]
    # What it asks a secret for is in it.
    (asked,) = re.findall(r"get secret (\S+) -o jsonpath='\{\.data\.(\w+)\}'", TEXT)
    made = [*yaml.safe_load_all(rendered["serving/templates/secrets.yaml"])]
    assert asked in [(each["metadata"]["name"], key) for each in made for key in each["data"]]


def test_kuberays_version_is_one_everywhere() -> None:
    named = set(re.findall(r"KubeRay (\d[\d.]*\d)", TEXT)) | set(
        re.findall(r"kuberay-operator .*--version (\S+)", TEXT)
    )
    notice = (Path(__file__).parent / "schemas" / "NOTICE").read_text()
    assert named == set(re.findall(r"KubeRay (\d[\d.]*\d)", notice))


def test_every_scenario_has_its_row() -> None:
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", INSTALL, re.MULTILINE)) == SCENARIOS


def test_every_value_that_it_names_is_there() -> None:
    known = {".".join(each.path) for each in chart.values((CHART / "values.yaml").read_text())}
    tops = {each.partition(".")[0] for each in known}
    # `router.*` and `models` of the models file have names like these.
    in_models_file = {"router.cpus", "router.replicas", "router.leave_s"}
    for name in set(re.findall(r"`(\w+(?:\.[\w*]+)+)(?:: \w+)?`", TEXT)) - in_models_file:
        if name.partition(".")[0] in tops and not (ROOT / name).exists():
            plain = re.sub(r"\.(NAME|urgent)\b.*", "", name).removesuffix(".*")
            assert any(each == plain or each.startswith(f"{plain}.") for each in known) or any(
                plain.startswith(f"{each}.") for each in known
            ), name


def test_every_target_of_make_that_it_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|\$ )make ([a-z][\w-]+)", TEXT))
    assert len(targets) > 4
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_and_heading_that_it_points_to_is_there() -> None:
    for place in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = place.partition("#")
        other = FILE.parent / file if file else FILE
        assert other.exists(), place
        headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
        assert not anchor or anchor in anchors, place
    for path in re.findall(r"`((?:tests|helm|deployments|docs)/[\w/.-]+)`", TEXT):
        assert (ROOT / path).exists(), path


def test_every_part_of_the_manual_is_there() -> None:
    """What somebody on call looks for."""
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert {"Install", "Sizing", "Change models", "Upgrade", "Nodes", "What outlives a pod"} <= {
        *headings
    }
    assert {"Security", "Probes", "Alerts", "What was not run"} <= {*headings}
    assert "**Roll back**: `helm rollback" in TEXT
    assert "| what | where | backup |" in TEXT


def test_the_longest_waits_are_those_of_the_chart() -> None:
    """Of the example that it gives: 900 s for a request, half an hour for an engine to start."""
    found = re.search(r"([\d,]+) s for a router\s+and ([\d,]+) s for an engine", TEXT)
    assert found is not None
    named = [int(each.replace(",", "")) for each in found.groups()]
    rendered = scenario("one-gpu")
    waits = [rendered.of(each)[0] for each in ("router", "engine")]
    assert [pod.spec["terminationGracePeriodSeconds"] for pod in waits] == named


@pytest.mark.parametrize("component", ["head", "router"])
def test_sizes_of_pods_are_those_of_the_defaults(component: str) -> None:
    rows = {
        cells[0]: cells[1:]
        for line in TEXT.split("\n## Sizing\n")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    (pod,) = scenario("one-gpu").of(component)
    resources = pod.main["resources"]
    asked, limit = resources["requests"], resources["limits"]
    memory = sorted({asked["memory"].removesuffix("Gi"), limit["memory"].removesuffix("Gi")})
    cpu, size = rows[component]
    assert size == f"{' to '.join(memory)} GiB"
    if component == "head":
        assert cpu == asked["cpu"]
    else:
        models = scenario("one-gpu").values["models"]
        own = float(asked["cpu"].removesuffix("m")) / 1000 - models["router"]["cpus"]
        assert f"and {own:g} for Ray's own processes" in cpu


def test_pods_that_it_asks_for_are_found(everything: Rendered) -> None:
    """By the labels in its `kubectl get pods -l ...`."""
    labels = [pod.labels | kuberays(pod.component) for pod in everything.ray_pods]
    found = set(re.findall(r"kubectl get pods -l ([\w./-]+)=([\w-]+)", TEXT))
    assert len(found) >= 3
    for name, value in found:
        assert any(each.get(name) == value for each in labels), (name, value)


def kuberays(component: str) -> dict[str, str]:
    """`labelPod` in KubeRay's common/pod.go."""
    return {"ray.io/node-type": "head" if component == "head" else "worker"}


def test_each_kind_of_object_is_in_some_scenario() -> None:
    """So nothing of the chart is rendered in no test."""
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*.yaml"))
    wanted = set(re.findall(r"^kind: (\w+)$", templates, re.MULTILINE))
    found = {each["kind"] for name in SCENARIOS for each in scenario(name).objects}
    assert found == wanted


def test_another_release_of_the_same_values_changes_no_pod(everything: Rendered) -> None:
    """Of any change KubeRay makes a new cluster."""
    again = render(everything.values, revision=7, is_upgrade=True)
    assert again.service["spec"] == everything.service["spec"]


def test_what_a_shell_in_a_pod_has_to_expand_is_quoted() -> None:
    for call in re.findall(r"`(kubectl exec [^`]+)`", TEXT):
        words = shlex.split(call)
        assert "*" not in call or words[words.index("--") + 1 :][:2] == ["sh", "-c"], call


def test_nothing_asks_for_the_words_of_a_container_before_but_where_there_may_be_some() -> None:
    """By default no container is started again in its pod (test_autoscaler.py)."""
    section = TEXT.split("\n### A pod that ended\n")[1].split("\n## ")[0]
    assert TEXT.count("--previous") == section.count("--previous") > 0
    assert DEFAULTS["ray"]["autoscaler"]["enabled"] is True
