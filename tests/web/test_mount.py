"""The application beside another, on one port."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tutelage.web import create_app


def outer(store, prefix):
    app = FastAPI()

    @app.get("/v1/models")
    def models():
        return {"data": []}

    app.mount(prefix, create_app(store, local=True))
    return TestClient(app, base_url="http://localhost:8000")


def test_mounted_at_the_root_it_leaves_other_routes_alone(filled):
    http = outer(filled, "/")
    assert http.get("/v1/models").json() == {"data": []}
    assert "Round 1" in http.get("/").text and http.get("/static/app.css").status_code == 200


def test_mounted_below_every_link_stays_below(filled):
    import re

    http = outer(filled, "/label")
    page = http.get("/label/").text
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
    assert len(links) > 5 and all(link.startswith("/label/") for link in links)
    item = http.get("/label/p/round-1/next")
    assert str(item.url).startswith("http://localhost:8000/label/t/") and item.status_code == 200
