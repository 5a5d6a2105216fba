"""`serving render-values`: a models file as values of the Helm chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from serving.cli import output as cli_output
from serving.cli.plan import BadFile, check_fits

HEAD = """\
# Made from a models file by `serving render-values`; `helm install -f` takes it beside values of
# your own. To change a model, change the models file and render it again.
"""


@click.command(
    name="render-values",
    short_help="Show a models file as values of the Helm chart.",
    epilog="""\b
Examples:
  serving render-values models.yaml > models-values.yaml
  helm upgrade --install serving helm -f models-values.yaml -f my-values.yaml
  serving render-values models.yaml --before models-values.yaml > next.yaml
  serving render-values models.yaml --group llama-3-8b-instruct=urgent

\b
The groups are those that `serving plan` has the GPUs of. With --before, groups
keep their places, and one that lost its last model stays with no pods: taking
it away would make KubeRay build a new cluster. --group gives a model a group
of its own, for tolerations or a priority that others have not.

\b
Exit codes:
  0  the values are on stdout
  1  something cannot run: why, and what would, is on stderr
  2  the file cannot be used
""",
)
@click.argument("file", type=click.Path())
@click.option(
    "--before",
    type=click.Path(exists=True, dir_okay=False),
    help="The values of the last time, whose groups keep their places.",
)
@click.option("--group", "groups", multiple=True, metavar="MODEL=NAME", help="A model's own group.")
def render_values(file: str, before: str | None, groups: tuple[str, ...]) -> None:
    """Show the models file FILE, and what is computed from it, as values of the Helm chart."""
    # Here, so that the other commands start without pydantic and YAML.
    import yaml

    from serving.catalogue.chart_values import ValuesError, chart_values, groups_of
    from serving.catalogue.groups import GroupError, group_models
    from serving.catalogue.load import CatalogueError, load_text
    from serving.catalogue.plan import plan

    try:
        text = Path(file).read_text(encoding="utf-8")
        catalogue = load_text(text, file)
        _refuse_relative(yaml.safe_load(text))
        planned = plan(catalogue.engines)
        old = groups_of(yaml.safe_load(Path(before).read_text())) if before else ()
        found = group_models(planned, dict(map(_own, groups)), old)
        values = chart_values(text, catalogue, found)
    except CatalogueError as error:
        raise BadFile(str(error)) from error
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from None
    except (GroupError, ValuesError) as error:
        raise BadFile(f"{file}: {error}") from None
    cli_output.write(HEAD + dumped({"models": values}))
    check_fits(planned)


def dumped(values: dict[str, Any]) -> str:
    """As YAML, with texts of several lines as they are."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(values, Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True))


def _own(item: str) -> tuple[str, str]:
    # IDs may have `=` nowhere, names neither.
    model, sign, name = item.partition("=")
    if not (model and sign and name):
        raise BadFile(f"--group {item}: write MODEL=NAME")
    return model, name


def _refuse_relative(written: dict[str, Any]) -> None:
    from serving.catalogue.chart_values import ValuesError

    for item in written["models"]:
        weights = item.get("weights") if isinstance(item, dict) else None
        if isinstance(weights, str) and weights.startswith(("./", "../")):
            raise ValuesError(
                f"model '{item['id']}': weights: '{weights}' is relative to the file, which no pod "
                "has; write an absolute path in the image or on a volume, or a repository"
            )
