"""Every route, by an administrator, with odd paths, queries and bodies: refused in words, never a 500."""

import os
import re
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.web.app import PARTS

ROUTES = [route for part in PARTS for route in part.router.routes if isinstance(route, APIRoute)]
CALLS = [(method, route.path) for route in ROUTES for method in sorted(route.methods - {"HEAD"})]
# fields that any route reads, so that bodies come further than the first check
FIELDS = [
    "id",
    "kind",
    "ranking",
    "ratings",
    "flags",
    "rest_below",
    "all_bad",
    "category",
    "note",
    "turns",
    "answer",
    "labels",
    "sensitive",
    "reason",
    "seconds",
    "effort",
    "revision",
    "payload",
    "name",
    "role",
    "password",
    "next",
    "overlap",
    "gold_every",
    "lease_minutes",
    "instructions",
    "screening",
    "template",
    "rating",
    "max_tokens",
    "paused",
    "tasks",
    "part",
    "admit",
    "score_1",
    "cause",
    "rank_A",
    "rating_A",
    "to",
    "model",
    "second",
    "endpoint",
    "by",
    "prompts",
    "samples",
    "recipe",
    "scopes",
    "days",
    "active",
    "file",
]
KNOWN = (
    "round-1",
    "texts",
    "proofs",
    "1",
    "5",
    "9",
    "A",
    "B",
    "rank",
    "world",
    "reward-round",
    "slip",
    "continue",
    "test",
)
EXAMPLES = int(os.environ.get("TUTELAGE_FUZZ", "6"))  # to each route; TUTELAGE_FUZZ=500 for a long run by hand

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(KNOWN), text)
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
body = st.dictionaries(st.one_of(st.sampled_from(FIELDS), text), value, max_size=12)
segment = st.one_of(st.sampled_from(KNOWN), st.integers().map(str), text.filter(bool))


@pytest.fixture
def admin(local, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    local.next()
    local.next("texts")
    return local


def test_nothing_that_is_sent_breaks_a_route(admin):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(names=st.lists(segment, min_size=4, max_size=4), sent=body, form=st.booleans())
    def check(names, sent, form):
        for method, path in CALLS:
            left = iter(names)
            address = re.sub(r"\{\w+\}", lambda _: quote(next(left), safe=""), path)
            headers = {"x-csrf-token": admin.csrf}
            options = {}
            if method == "GET":
                options["params"] = {k: str(v) for k, v in sent.items()}
            elif form:
                options["data"] = {k: v if isinstance(v, list) else str(v) for k, v in sent.items() if k != "file"}
            else:
                options["json"] = _plain(sent)
            reply = admin.http.request(method, address, headers=headers, **options)
            assert reply.status_code < 500, (method, address, sent, reply.text[:300])
            if admin.http.get("/p/round-1/next").status_code == 303 and "data-csrf" not in reply.text:
                admin.get("/")  # signing out, or a new session, changed the token

    check()


def _plain(sent):
    """JSON has no nan and no infinity."""
    if isinstance(sent, dict):
        return {k: _plain(v) for k, v in sent.items()}
    if isinstance(sent, list):
        return [_plain(v) for v in sent]
    return sent if not isinstance(sent, float) or abs(sent) < 1e300 else 1.5
