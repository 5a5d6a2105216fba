"""As much of a Kubernetes API server as Helm asks before it writes: which kinds there are, and the
objects of a namespace. Nothing can be written to it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.helm.rendered import Object

NOT_FOUND = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound"}


@contextmanager
def api_server(kinds: Iterable[Object], objects: Iterable[Object]) -> Iterator[str]:
    """Its URL. It knows the kinds of `kinds`, and has `objects`."""
    pages = _pages(list(kinds), list(objects))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(urlsplit(self.path).path)
            body = json.dumps(NOT_FOUND | {"code": 404} if page is None else page).encode()
            self.send_response(404 if page is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _pages(kinds: list[Object], objects: list[Object]) -> dict[str, Object]:
    versions: dict[str, set[str]] = {}
    for each in kinds:
        versions.setdefault(each["apiVersion"], set()).add(each["kind"])
    pages: dict[str, Object] = {
        "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(versions)},
        "/openapi/v3": {
            "paths": {
                _place(version).lstrip("/"): {"serverRelativeURL": f"/openapi/v3{_place(version)}"}
                for version in versions
            }
        },
    }
    for version, names in versions.items():
        pages[_place(version)] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {"name": _plural(each), "singularName": "", "namespaced": True, "kind": each}
                | {"verbs": ["get", "list", "create", "patch"]}
                for each in sorted(names)
            ],
        }
        # That the server itself refuses unknown fields, so that Helm need not know the schemas.
        pages[f"/openapi/v3{_place(version)}"] = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.31.0"},
            "paths": {
                f"{_place(version)}/{_plural(each)}": {
                    "patch": {
                        "parameters": [{"name": "fieldValidation", "in": "query"}],
                        "x-kubernetes-group-version-kind": _kind(version, each),
                        "responses": {},
                    }
                }
                for each in names
            },
        }
    for each in objects:
        metadata = each["metadata"]
        space = f"{_place(each['apiVersion'])}/namespaces/{metadata['namespace']}"
        pages[f"{space}/{_plural(each['kind'])}/{metadata['name']}"] = each
    return pages


def _place(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _kind(version: str, kind: str) -> Object:
    group, _, number = version.rpartition("/")
    return {"group": group, "version": number, "kind": kind}


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def _groups(versions: Iterable[str]) -> list[Object]:
    found = []
    for version in versions:
        group, _, number = version.rpartition("/")
        if group:
            named = {"groupVersion": version, "version": number}
            found.append({"name": group, "versions": [named], "preferredVersion": named})
    return found
