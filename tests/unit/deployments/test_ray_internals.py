"""What `ray_internals.py` assumes of Ray, against the installed version.

A test here that fails says what Ray has changed and which function to look at.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray import serve
from ray.serve._private import replica

from deployments import ray_internals
from deployments.environment import serve_environment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REPLICAS = [
    kind
    for kind in vars(replica).values()
    if isinstance(kind, type) and "_on_initialized" in vars(kind)
]


def listening() -> set[tuple[str, int]]:
    found = psutil.Process().net_connections("inet")
    return {(at.laddr.ip, at.laddr.port) for at in found if at.status == psutil.CONN_LISTEN}


class FakeReplica(SimpleNamespace):
    """As much of a replica as its last step of initialization needs."""

    async def _maybe_start_direct_ingress_servers(self) -> None:
        pass

    def _set_internal_replica_context(self, **_: Any) -> None:
        pass


async def initialized(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """What is listened on after Serve's own last step of a replica's initialization."""
    context = SimpleNamespace(rank=None)
    monkeypatch.setattr("ray.serve.context._get_internal_replica_context", lambda: context)
    (kind,) = {kind._on_initialized for kind in REPLICAS if "add_port" in kind_source(kind)}
    server = replica.create_grpc_server_with_interceptors(asynchronous=True, options=[])
    fake = FakeReplica(
        _server=server,
        _user_callable_wrapper=SimpleNamespace(user_callable=None),
        _initialization_latency=1.0,
    )
    # gRPC looks for the methods of the service.
    for name in dir(replica.Replica):
        if name[0].isupper():
            setattr(fake, name, None)
    before = listening()
    await kind(fake)
    try:
        return listening() - before
    finally:
        assert fake._internal_grpc_port is not None, "Serve stops the server only if it has a port"
        await asyncio.wait_for(server.stop(0), 5)


def kind_source(kind: Any) -> str:
    return inspect.getsource(kind._on_initialized)


async def test_a_replica_opens_a_port_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prevented. If this fails, Serve may have mended it: see `open_no_grpc_port`."""
    opened = await initialized(monkeypatch)
    assert [address for address, _ in opened] == ["::"]


async def test_the_port_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)
    ray_internals.open_no_grpc_port()
    assert await initialized(monkeypatch) == set(), "see open_no_grpc_port"


def test_the_constructor_runs_before_the_port_opens() -> None:
    (source,) = {inspect.getsource(kind.initialize) for kind in REPLICAS}
    assert source.index(".initialize_callable()") < source.index("._on_initialized()")


def test_handles_call_without_grpc() -> None:
    """With Serve optimized for throughput they would call by gRPC, on the port that is closed."""
    code = (
        "from ray.serve._private.handle_options import DynamicHandleOptions as Options\n"
        "print(Options()._by_reference)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for environment, by_reference in (
        (serve_environment(), "True"),
        ({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}, "False"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == by_reference, done.stderr


@pytest.mark.parametrize(("mode", "asks"), [("token", "True"), ("disabled", "False")])
def test_who_asks_for_a_token(mode: str, asks: str) -> None:
    code = "from deployments.ray_internals import asks_for_token; print(asks_for_token())"
    env = os.environ | {"RAY_AUTH_MODE": mode}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == asks, done.stderr


def test_a_deployment_has_the_version_it_is_given() -> None:
    class Nothing:
        pass

    deployment = ray_internals.with_version(serve.deployment(Nothing), "abc")
    assert deployment._version == "abc", "see with_version"


@pytest.mark.parametrize(("versioned", "expected"), [(False, "of-arguments"), (True, "abc")])
def test_it_keeps_the_version_where_it_is_declared(
    versioned: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of `build_serve_application`, which names a version after the arguments."""
    from ray.serve._private.build_app import build_app
    from ray.serve._private.deploy_utils import deploy_args_to_deployment_info, get_deploy_args

    # The job that asks; asked for it without a cluster, Ray would start one.
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "1"))

    class Nothing:
        pass

    deployment = serve.deployment(Nothing, user_config={"a": [1]}, num_replicas=3)
    if versioned:
        deployment = ray_internals.with_version(deployment, "abc")
    (built,) = build_app(deployment.bind(), name="app", default_runtime_env={}).deployments
    given = get_deploy_args(
        name=built._name,
        replica_config=built._replica_config,
        deployment_config=built._deployment_config,
        version="of-arguments",
    )
    info = deploy_args_to_deployment_info(**given)
    assert info.version == info.deployment_config.version == expected, "see with_version"
    assert info.deployment_config.user_config == {"a": [1]}
    assert info.deployment_config.num_replicas == 3


def test_serve_says_what_was_declared() -> None:
    from ray.serve.schema import APIType, ApplicationDetails, ServeInstanceDetails

    assert {"source", "deployed_app_config"} <= ApplicationDetails.model_fields.keys()
    assert "applications" in ServeInstanceDetails.model_fields
    assert APIType.DECLARATIVE == "declarative", "see declared_configs"


def test_nothing_is_declared_where_serve_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_internals, "_get_global_client", lambda **_: None)
    assert ray_internals.declared_configs() == {}
