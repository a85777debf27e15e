"""A reward prefix by prefix: the tint, the same in words, and what is not a reading."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixture import make_run, report  # noqa: E402, RUF100

from tutelage.report import write_report  # noqa: E402, RUF100
from tutelage.report.reward_strip import HINT, in_words, largest_change, strip, tinted  # noqa: E402, RUF100


def answer(pieces, scores):
    return {"text": "".join(pieces), "by_prefix": {"pieces": pieces, "scores": scores}}


ROSE = answer(["Bak", "ers", " <bake>", " bread", ""], [0.0, 0.6, 0.61, -0.2, 0.1])
FLAT = answer(["So", "."], [0.5, 0.6])


def test_a_tint_means_the_same_in_answers_side_by_side():
    largest = largest_change([ROSE, FLAT, {"text": "unread"}])
    assert abs(largest - 0.81) < 1e-9
    html = tinted(ROSE, largest)
    assert html == (
        'Bak<span class="p2" title="+0.6, to 0.6">ers</span> &lt;bake&gt;'
        '<span class="m3" title="−0.81, to −0.2"> bread</span><span class="p1" title="+0.3, to 0.1"><small>end</small></span>'
    )
    assert tinted(FLAT, largest) == "So."  # next to the other's steps this is nothing
    assert tinted(FLAT, 0.1).count("p3") == 1
    assert [s for _, _, s in strip(["So", "."], [0.5, 0.6])] == ["m0", "p3"]


def test_words_say_what_the_colors_say():
    said = in_words(ROSE)
    assert "Reward 0.1; rises most at “Bakers” (+0.6), its end (+0.3)" in said
    assert "falls most at “bread” (−0.81)." in said
    assert "Reward 0.6; rises most at “So.” (+0.1)." in in_words(FLAT)


def test_what_is_no_reading_is_the_plain_answer():
    for wrong in (
        None,
        [],
        {"pieces": ["a"], "scores": []},
        {"pieces": ["a"], "scores": [None]},
        {"pieces": [], "scores": []},
    ):
        assert tinted({"by_prefix": wrong}, 1.0) == in_words({"by_prefix": wrong}) == ""
    long = answer(["word "] * 2000, [0.0] * 2000)
    assert len(tinted(long, 1.0)) == 4002
    assert strip([], []) == []


def test_the_page_has_a_legend_where_there_is_a_reading(tmp_path):
    html = write_report(make_run(tmp_path / "run")).read_text("utf-8")
    part = html.split('<section id="samples">')[1].split("</section>")[0]
    assert HINT in part and part.count('class="text rw"') >= 44 and "rises most at “ppo.”" in part
    value = report()
    for sample in value["samples"]:
        for one in sample["answers"].values():
            one.pop("by_prefix", None)
    bare = write_report(make_run(tmp_path / "bare", value)).read_text("utf-8")
    assert HINT not in bare and 'class="text rw"' not in bare and "An answer by ppo." in bare
