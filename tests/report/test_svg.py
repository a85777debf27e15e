"""A panel's axis: from zero to its ends, and a plain one where there is nothing but zeros; room for names."""

import re

import pytest

from tutelage.report.svg import Dot, Line, dot_panel, line_panel, short, tick_words


@pytest.mark.parametrize(
    "dots, ticks",
    [
        ([Dot("a", 0.0), Dot("b", 0.0, (0.0, 0.0))], (0.0, 1.0)),
        ([Dot("a", 2.0, (1.0, 4.0))], (0.0, 4.0)),
        ([Dot("a", -2.0, (-4.0, -1.0))], (-4.0, 0.0)),
    ],
)
def test_an_axis_holds_zero_and_every_end(dots, ticks):
    svg = dot_panel(dots, "t", limits=None, show=lambda v: f"{v:.6g}", width=360)
    shown = [float(tick) for tick in re.findall(r'class="t mid"[^>]*>([^<]+)<', svg)]
    assert (min(shown), max(shown)) == ticks
    assert all(96 <= float(x) <= 302 for x in re.findall(r'class="m" cx="([\d.]+)"', svg))


@pytest.mark.parametrize("name", ["PPO", "at equal lengths", "ppo-no-kl / base, more"])
def test_a_name_has_room(name):
    """Names end at the axis: at 7.5 units a letter, more than the font takes, none begins outside of the picture."""
    svg = dot_panel([Dot(name, 0.4), Dot("b", 0.7)], "t")
    (end, *_) = (float(x) for x in re.findall(r'class="lab end" x="([\d.]+)"', svg))
    assert end - 7.5 * len(name) >= 0
    assert all(end < float(x) < 302 for x in re.findall(r'class="m" cx="([\d.]+)"', svg))


def test_ticks_of_a_narrow_range_are_told_apart():
    words = tick_words([18.16, 18.2, 18.24], short)
    assert words == ["18.16", "18.2", "18.24"] and tick_words([1.0, 2.0], short) == ["1", "2"]


def test_the_band_of_an_interval_lies_within_the_panel():
    line = Line("a", [(0, 1.0), (1, 2.0)], band=[(0, -3.0, 5.0), (1, 1.0, 9.0)])
    svg = line_panel([line], "t", x_label="step", height=250)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", re.search(r'class="band" d="([^"]+)"', svg)[1])]
    assert len(heights) == 4 and min(heights) >= 14 and max(heights) <= 208
    assert "band" not in line_panel([Line("a", [(0, 1.0), (1, 2.0)])], "t", x_label="step")
