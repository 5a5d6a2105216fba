"""The ways in: the Ingress and the Gateway's route."""

from __future__ import annotations

import pytest

from tests.helm.rendered import Object, Rendered, merged, render, scenario_values


def one(rendered: Rendered, kind: str) -> Object | None:
    found = [*rendered.kind(kind).values()]
    assert len(found) < 2
    return found[0] if found else None


def test_they_are_there_where_they_are_asked_for(rendered: Rendered) -> None:
    values = rendered.all_values
    assert (one(rendered, "Ingress") is not None) is values["ingress"]["enabled"]
    assert (one(rendered, "HTTPRoute") is not None) is values["gateway"]["enabled"]


def test_an_ingress_has_the_hosts_the_class_and_the_certificate(rendered: Rendered) -> None:
    wanted, ingress = rendered.all_values["ingress"], one(rendered, "Ingress")
    if ingress is None:
        return
    spec = ingress["spec"]
    assert spec["ingressClassName"] == wanted["className"]
    assert [rule["host"] for rule in spec["rules"]] == wanted["hosts"]
    assert spec["tls"] == [{"secretName": wanted["tlsSecret"], "hosts": wanted["hosts"]}]
    notes = ingress["metadata"]["annotations"]
    assert notes == {**notes, **wanted["annotations"]}
    # A stream goes through as it comes.
    assert notes["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_an_ingress_takes_bodies_as_large_as_the_service_does(everything: Rendered) -> None:
    from serving.settings import Settings

    ingress = one(everything, "Ingress")
    assert ingress is not None
    size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) * 2**20 >= Settings().max_body_bytes


def test_a_route_belongs_to_its_gateways(rendered: Rendered) -> None:
    wanted, route = rendered.all_values["gateway"], one(rendered, "HTTPRoute")
    if route is not None:
        assert route["spec"]["parentRefs"] == wanted["parents"]
        assert route["spec"]["hostnames"] == wanted["hosts"]


@pytest.mark.parametrize("port", [80, 8080])
def test_they_lead_to_a_port_of_the_service(port: int) -> None:
    found = render(merged(scenario_values("everything"), {"service": {"port": port}}))
    (offered,) = found.service["spec"]["serveService"]["spec"]["ports"]
    assert offered["port"] == port
    ingress, route = one(found, "Ingress"), one(found, "HTTPRoute")
    assert ingress is not None
    assert route is not None
    (rule,) = ingress["spec"]["rules"]
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"]["port"] == {"name": offered["name"]}
    for rule in route["spec"]["rules"]:
        assert [backend["port"] for backend in rule["backendRefs"]] == [port]


def test_without_hosts_and_a_certificate_all_names_lead_here() -> None:
    change = {"ingress": {"enabled": True}}
    ingress = one(render(merged(scenario_values("one-gpu"), change)), "Ingress")
    assert ingress is not None
    assert not ingress["spec"].keys() & {"tls", "ingressClassName"}
    (rule,) = ingress["spec"]["rules"]
    assert "host" not in rule
