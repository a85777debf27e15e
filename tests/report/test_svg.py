"""A panel's axis: from zero to its ends, and a plain one where there is nothing but zeros."""

import re

import pytest

from tutelage.report.svg import Dot, dot_panel


@pytest.mark.parametrize(
    "dots, ticks",
    [
        ([Dot("a", 0.0), Dot("b", 0.0, (0.0, 0.0))], (0.0, 1.0)),
        ([Dot("a", 2.0, (1.0, 4.0))], (0.0, 4.0)),
        ([Dot("a", -2.0, (-4.0, -1.0))], (-4.0, 0.0)),
    ],
)
def test_an_axis_holds_zero_and_every_end(dots, ticks):
    svg = dot_panel(dots, "t", limits=None, show=lambda v: f"{v:.6g}", width=360, gutter=96)
    shown = [float(tick) for tick in re.findall(r'class="t mid"[^>]*>([^<]+)<', svg)]
    assert (min(shown), max(shown)) == ticks
    assert all(96 <= float(x) <= 302 for x in re.findall(r'class="m" cx="([\d.]+)"', svg))
