"""What a TLS proxy says of the client is believed of the one that was named, and of nobody else."""

import pytest
from fastapi.testclient import TestClient

from tutelage.feedback import people
from tutelage.web.app import create_app
from tutelage.web.server import configured, is_local

from .site import PASSWORD

SAID = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"}


@pytest.fixture
def at(filled):
    """A client whose connection comes from an address, over the application as the server runs it."""
    app = create_app(filled)
    with filled.write() as db:
        people.add_person(db, "Ana", "labeler", PASSWORD)

    def at(peer, proxies=("172.30.80.1",)):
        config = configured(app, proxies)
        config.load()
        return TestClient(config.loaded_app, client=(peer, 5000), follow_redirects=False)

    return at


def sign_in(client, password=PASSWORD, headers=SAID, name="Ana"):
    return client.post("/login", data={"name": name, "password": password}, headers=headers)


@pytest.mark.parametrize(
    ("peer", "proxies", "secure"),
    [
        ("172.30.80.1", ("172.30.80.1",), True),
        ("172.30.80.1", ("10.0.0.1", "172.30.80.0/24"), True),
        ("::1", ("::1",), True),
        ("172.30.80.2", ("172.30.80.1",), False),
        ("203.0.113.9", ("172.30.80.0/24",), False),
        ("127.0.0.1", ("172.30.80.1",), False),
        ("127.0.0.1", (), False),  # no proxy was named: not even this machine is believed
    ],
)
def test_the_cookie_is_secure_behind_a_trusted_proxy_only(at, peer, proxies, secure):
    reply = sign_in(at(peer, proxies))
    cookie = reply.headers["set-cookie"]
    assert reply.status_code == 303 and ("; Secure" in cookie) is secure
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    plain = sign_in(at(peer, proxies), headers={"x-forwarded-proto": "http"})
    assert "; Secure" not in plain.headers["set-cookie"]


def test_tries_are_counted_by_the_clients_address(at):
    proxy = at("172.30.80.1")
    for i in range(5):
        assert sign_in(proxy, "wrong", name=f"nobody {i}").status_code == 403
    assert sign_in(proxy, "wrong", name="another").status_code == 429  # this client must wait
    other = SAID | {"x-forwarded-for": "198.51.100.2"}
    assert sign_in(proxy, headers=other).status_code == 303  # who comes by the same proxy need not


def test_nobody_else_gets_free_tries_by_naming_other_addresses(at):
    stranger = at("203.0.113.50")
    replies = [
        sign_in(stranger, "wrong", {"x-forwarded-for": f"198.51.100.{i}"}, name=f"nobody {i}").status_code
        for i in range(7)
    ]
    assert replies == [403] * 5 + [429] * 2
    proxy = at("172.30.80.1")  # a client may write the header too; the proxy's own entry is the last
    told = [f"10.0.0.{i}, 203.0.113.51" for i in range(7)]
    replies = [
        sign_in(proxy, "wrong", {"x-forwarded-for": line}, name=f"other {i}").status_code for i, line in enumerate(told)
    ]
    assert replies == [403] * 5 + [429] * 2


def test_accounts_are_demanded_where_a_proxy_brings_others_in(filled, monkeypatch):
    import socket

    from tutelage.web import server

    assert is_local("127.0.0.1", False)
    made = {}

    def create(store, *, local, workbench):
        made["local"] = local
        return create_app(store, local=local)

    monkeypatch.setattr(server, "create_app", create)
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: made.setdefault("config", self.config))
    for proxies, local in (((), True), (("127.0.0.1",), False)):
        made.clear()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server.serve(filled, "127.0.0.1", listener, accounts=False, proxies=proxies)
        assert made["local"] is local and made["config"].proxy_headers is bool(proxies)
