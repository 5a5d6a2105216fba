"""A cluster whose applications are declared: in KubeRay's `serveConfigV2`, or by `serve deploy`.

Such a cluster has one writer. What anybody else deployed there would not be in the configuration,
would never be removed by it, and would be lost with a head that does not come back; and what the
configuration has would be deployed over it the next time. So `serving apply` says there what has to
change in the configuration, and changes nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.names import ROUTER_APP
from serving.catalogue.names import ENGINE_APPS

ADVICE = """\
KubeRay (or `serve deploy`) writes the applications of this cluster, so nothing was changed here; \
put the file into the values of the chart, `serving render-values {file} --before \
models-values.yaml > next.yaml && mv next.yaml models-values.yaml`, and commit these, or run \
`helm upgrade` with them (docs/kubernetes.md, "Change models")"""


@dataclass(frozen=True)
class Declared:
    """`models_yaml` is the models file in the configuration; empty if it only has a path."""

    models_yaml: str


def declared(configs: Mapping[str, Mapping[str, Any]]) -> Declared | None:
    """What is declared of this service; None if nothing of it is.

    Args:
        configs: by the name of each declared application of the cluster, as in `serveConfigV2`.
            Others than ours may be among them.
    """
    ours = [
        config
        for name, config in sorted(configs.items())
        if name == ROUTER_APP or name.startswith(ENGINE_APPS)
    ]
    if not ours:
        return None
    # The same in each; the routers' comes last.
    return Declared(ours[-1].get("args", {}).get("models_yaml", ""))


def unified(old: str, new: str, file: str) -> str:
    """What to change in the models file of the configuration, as `diff -u` and `patch` write it."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "serveConfigV2", file, lineterm=""
    )
    return "\n".join(lines)
