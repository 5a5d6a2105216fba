"""The API's description as a client gets it."""

from __future__ import annotations

from tests.gateway.conftest import Site


async def test_it_needs_no_key_and_is_the_same_for_all(site: Site) -> None:
    for path, kind in (("/openapi.json", "application/json"), ("/docs", "text/html")):
        response = await site.client.get(path, headers={"x-api-key": "sk-wrong"})
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        head = await site.client.head(path)
        assert head.headers["content-length"] == str(len(response.content))
    document = (await site.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "echo" not in document["info"]["description"]
