"""The names of our applications and deployments in Ray Serve; an engine's application is named by
`serving.catalogue.names`."""

from __future__ import annotations

ROUTER_APP = "router"
ROUTER = "router"
ENGINE = "engine"
