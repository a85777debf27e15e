"""Agreement by use case and by period."""

from datetime import UTC, datetime

import pytest

from tutelage.feedback import people, queue
from tutelage.feedback.breakdown import by_category, categories, over_time
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.quality import Ranked, agreement, compare_all, read_rankings, shared_parts
from tutelage.feedback.statistics import quality
from tutelage.records import Completion, Prompt

DAY = 86_400.0
MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()


def two(item, when, alike, later=0.0):
    return [Ranked(item, "a", [1, 2, 3], when), Ranked(item, "b", [1, 2, 3] if alike else [3, 2, 1], when + later)]


def test_rows_by_category_have_their_pairs_and_intervals():
    rankings = [one for item in range(40) for one in two(item, MONDAY, alike=item % 4 != 0)]
    rankings += [*two(90, MONDAY, alike=True), Ranked(91, "a", [1, 2])]
    names = {**dict.fromkeys(range(40), "chat"), 90: "rewrite", 91: "extract"}
    chat, rewrite, extract = by_category(compare_all(rankings), names)
    assert (chat.name, chat.share.value, chat.share.n, chat.share.items) == ("chat", 0.75, 120, 40)
    low, high = chat.share.ci95
    assert 0.55 < low < 0.66 and 0.85 < high < 0.92  # 40 items, not 120 pairs
    with_figures = by_category(compare_all(rankings), names, shared_parts(rankings))[0].figures
    of_chat = agreement([one for one in rankings if names[one.item] == "chat"])
    assert with_figures["kendall_tau"] == 0.5 and with_figures == {
        k: v for k, v in of_chat.items() if k in with_figures
    }
    assert rewrite.share.ci95 is None and extract.share is None
    assert extract.to_json("category") == {"category": "extract", "share": None, "ci95": None, "pairs": 0, "items": 0}


def test_weeks_begin_on_monday_and_a_short_project_has_days():
    short = two(1, MONDAY, True) + two(2, MONDAY + DAY, False) + two(3, MONDAY + DAY, True)
    unit, rows = over_time(compare_all(short))
    assert unit == "day" and [(row.name, row.share.value) for row in rows] == [("2026-03-02", 1.0), ("2026-03-03", 0.5)]
    long = short + two(4, MONDAY + 22 * DAY, True) + two(5, MONDAY, False, later=7 * DAY)
    unit, rows = over_time(compare_all(long))
    # the second answer to item 5 came a week after the first: they met then
    assert unit == "week" and [row.name for row in rows] == ["2026-03-02", "2026-03-09", "2026-03-23"]
    assert [row.share.items for row in rows] == [3, 1, 1]
    assert over_time([]) == ("day", [])
    figures = [row.figures for row in over_time(compare_all(long), shared_parts(long))[1]]
    assert [one["kendall_tau"] for one in figures] == [0.3333, -1.0, 1.0] and figures[1]["kendall_tau_ci95"] is None


@pytest.fixture
def answered(store):
    """Three items: the first prompt states its use case, labelers say the second's, nobody the third's."""
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=2)
        asked = [
            Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"{i}?"}], category="chat" if i == 0 else None)
            for i in range(3)
        ]
        import_records(db, project, asked, [Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"text {k}") for i in range(3) for k in "ab"])  # fmt: skip
        for name in ("ana", "ben"):
            people.add_person(db, name, "labeler", None, person_id=name)
            for number in range(3):
                task = queue.lease_next(db, project, name)
                said = "extract" if number == 1 else "rewrite" if number == 0 else None
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", {"ranks": [1, 2], "category": said})
    return store


def test_the_use_case_is_the_prompts_or_what_labelers_say(answered):
    with answered.read() as db:
        project = find_project(db, "round-1")
        rankings = read_rankings(db, project)
        assert sorted(categories(db, project, rankings).values()) == ["chat", "extract", "not stated"]
        found = quality(db, project)
    assert [row.name for row in found["categories"]] == ["chat", "extract", "not stated"]
    assert found["period"] == "day" and sum(row.share.n for row in found["periods"]) == 3
    assert found["labelers"][0].agreement.ci95[0] < 0.6  # three of three says little
