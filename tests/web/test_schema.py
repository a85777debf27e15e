"""schemathesis reads the routes' schemas, the pages' and the models' API's, and finds no 500."""

import json
import os

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
EXAMPLES = int(os.environ.get("TUTELAGE_FUZZ", "2"))  # for each route; TUTELAGE_FUZZ=100 for a long run by hand


def check(raw, http, headers, skip=()):
    """Every operation of a schema, with what schemathesis makes of it; returns how many were tried."""
    count = 0
    for found in schemathesis.openapi.from_dict(raw).get_all_operations():
        operation = found.ok()
        if operation.path in skip:
            continue
        count += 1

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def ask(case):
            sent = case.as_transport_kwargs(base_url=str(http.base_url).rstrip("/"))
            sent["headers"] = {**dict(sent.get("headers") or {}), **headers()}
            known = ("method", "url", "params", "headers", "json", "data", "content", "cookies")
            reply = http.request(**{name: value for name, value in sent.items() if name in known and value is not None})
            assert reply.status_code < 500, (sent["method"], sent["url"], reply.text[:300])

        ask()
    return count


def test_the_pages(local, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    item = local.next()
    raw = local.http.app.openapi()
    body = {"schema": {"type": "object", "additionalProperties": True}}
    for path in raw["paths"].values():
        if "post" in path:  # the routes read their bodies themselves, so that the schema names none
            path["post"]["requestBody"] = {"content": {"application/json": body}}
    raw = json.loads(json.dumps(raw).replace("{task_id}", str(item["task"])).replace("{project_id}", "round-1"))
    for path in raw["paths"].values():
        for operation in path.values():
            operation["parameters"] = [
                one for one in operation.get("parameters", []) if one["name"] not in ("task_id", "project_id")
            ]
    headers = lambda: {"x-csrf-token": local.csrf}  # noqa: E731
    assert check(raw, local.http, headers, skip=("/logout",)) > 25


def test_the_api_of_the_models():
    from tutelage.serving.app import make_app

    app: FastAPI = make_app([])
    http = TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)
    assert check(app.openapi(), http, dict) >= 4
