"""Every scenario is rendered once."""

from __future__ import annotations

import pytest

from tests.helm.rendered import SCENARIOS, Rendered, scenario


@pytest.fixture(params=SCENARIOS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return scenario(request.param)


@pytest.fixture
def everything() -> Rendered:
    return scenario("everything")
