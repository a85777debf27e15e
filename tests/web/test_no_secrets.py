"""No password, token, cookie or invitation stands in the server's output or in the audit log."""

import re
import sqlite3
import subprocess
import sys
import time

import httpx
import pytest

EVE = {"name": "Eve", "password": "correct horse battery"}
PASSWORDS = ("correct horse battery", "staple wrong guess")


@pytest.fixture
def server(tmp_path):
    """The real command with accounts: (address, the first invitation, a function that ends it and returns its output)."""
    words = ["feedback", "serve", "--store", str(tmp_path / "feedback.db"), "--accounts", "--port", "0"]
    log = tmp_path / "output.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", *words], stdout=file, stderr=file, cwd=tmp_path, stdin=subprocess.DEVNULL
        )
    try:
        for _ in range(600):
            found = re.search(r"first account at (http://[^/]+)(/join/([\w-]+))", log.read_text())
            if found or process.poll() is not None:
                break
            time.sleep(0.1)
        assert found, log.read_text()

        def end():
            process.terminate()
            process.wait(20)
            return log.read_text()

        yield found.group(1), found.group(3), end
    finally:
        process.kill()
        process.wait()


def test_nothing_secret_is_written_anywhere(server, tmp_path):
    address, first, end = server
    secrets = list(PASSWORDS)
    with httpx.Client(base_url=address, timeout=20) as web:

        def post(path, **fields):
            token = re.search(r'data-csrf="([^"]*)"', web.get("/login").text).group(1)
            return web.post(path, data={"csrf": token, **fields})

        for _ in range(50):  # the socket is bound before the application is there
            try:
                web.get("/login")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert post(f"/join/{first}", name="Mira", password=PASSWORDS[0]).status_code == 303
        secrets.append(web.cookies["tutelage_session"])
        page = post("/people/invite", role="labeler").text
        secrets.append(re.search(r"/join/([\w-]+)", page).group(1))
        made = post("/people/tokens", **{"name": "night labeler", "scopes[]": "label", "days": "9"}).text
        secrets += re.findall(r"tut_[\w-]{20,}", made)
        assert len(secrets) == 5
        token = secrets[-1]
        with httpx.Client(base_url=address, timeout=20) as other:
            other.post(
                f"/join/{post('/people/invite', role='labeler').text.split('/join/')[1].split(chr(34))[0]}", data=EVE
            )
        page = post(f"/people/{re.findall(r'/people/([0-9a-f]+)/password', web.get('/people').text)[0]}/password").text
        secrets.append(re.search(r"/password/([\w-]{20,})", page).group(1))
        web.post(f"/password/{secrets[-1]}", data={"password": "short"})
        assert web.get(f"/join/{secrets[3]}").status_code == 200
        web.post(f"/join/{secrets[3]}", data={"name": "Mira", "password": PASSWORDS[0]})  # a name that is taken
        web.post("/login", data={"name": "Mira", "password": PASSWORDS[1]})
        web.post("/login", data={"name": PASSWORDS[0], "password": "Mira"})  # in the wrong field
        web.post("/login", json={"name": "Mira", "password": PASSWORDS[1]})
        web.post("/login", content=f'{{"password": "{PASSWORDS[0]}", ', headers={"content-type": "application/json"})
        bearer = {"authorization": f"Bearer {token}", "accept": "application/json"}
        assert web.get("/people", headers=bearer).status_code == 403
        web.get("/nowhere", params={"token": token, "password": PASSWORDS[0]})
        web.get("/t/1", headers=bearer)
        # The database fails under requests that carry secrets.
        with sqlite3.connect(tmp_path / "feedback.db") as db:
            db.execute("ALTER TABLE session RENAME TO gone")
        for path in ("/", f"/join/{secrets[3]}"):
            web.get(path)
        web.post("/login", data={"name": "Mira", "password": PASSWORDS[0]})
        with sqlite3.connect(tmp_path / "feedback.db") as db:
            db.execute("ALTER TABLE gone RENAME TO session")
            log = "\n".join(map(str, db.execute("SELECT * FROM audit")))
            everything = "\n".join(db.iterdump())
    output = end()
    assert "sign-in refused" in log and "invite" in log and "token" in log.lower()
    assert output.count(first) == 1 and first not in log  # the first start shows it, once; it is used up now
    for secret in secrets:
        assert secret not in output and secret not in log
        assert secret not in everything  # nor does the store itself hold one
