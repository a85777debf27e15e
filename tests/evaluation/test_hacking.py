"""Fits of curves that are known, and verdicts on runs that hack and runs that do not."""

import numpy as np
import pytest

from tutelage.algorithms.overoptimization import best_of_n_form, rl_form
from tutelage.errors import UserError
from tutelage.evaluation.hacking import RunCurve, hacked, samples_at_marks, summarize
from tutelage.evaluation.scaling import best_gold, fit_form, mean_curve

KL = [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 25.0]


@pytest.mark.parametrize(("form", "formula"), [("rl", rl_form), ("best-of-n", best_of_n_form)])
def test_a_curve_without_noise_is_found_exactly(form, formula):
    fit = fit_form(form, KL, [formula(kl**0.5, 1.2, 0.4) for kl in KL], range(len(KL)))
    assert (fit.alpha, fit.beta) == pytest.approx((1.2, 0.4)) and fit.r2 == pytest.approx(1)
    assert fit.alpha_error == pytest.approx(0, abs=1e-6)
    # rl: e^(3 - 1) = 7.39, where gold is 0.4 * 7.39; best of n: 1.2 / 0.8 = 1.5, where it is 1.44 / 1.6
    expected = (np.exp(2), 0.4 * np.exp(2)) if form == "rl" else (1.5, 0.9)
    assert (fit.peak_distance, fit.peak_gain) == pytest.approx(expected)
    assert fit.peak_is_inside is (form == "best-of-n") and fit.peak_kl == pytest.approx(expected[0] ** 2)
    assert fit.at(2.0) == pytest.approx(formula(2.0, 1.2, 0.4))


def test_errors_cover_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        kl = np.tile(KL, 8)
        shift = np.repeat(rng.normal(0, 0.05, 8), len(KL)) * np.sqrt(kl)  # seeds differ in slope
        gain = [rl_form(k**0.5, 1.0, 0.3) for k in kl] + shift + rng.normal(0, 0.02, len(kl))
        fit = fit_form("rl", kl, gain, np.repeat(range(8), len(KL)).tolist())
        inside += abs(fit.alpha - 1.0) < 2.36 * fit.alpha_error  # t with 7 degrees of freedom
    assert 0.85 < inside / 200 < 0.99


def test_what_cannot_be_fitted_is_none():
    assert fit_form("rl", [0.0, 0.0, 1.0], [0, 0, 1], "aab") is None  # too near to the start
    assert fit_form("rl", [1.0] * 6, [1.0] * 6, "abcdef") is None
    rising = fit_form("best-of-n", KL, [kl**0.5 for kl in KL], range(8))
    assert rising.peak_distance is None or not rising.peak_is_inside
    with pytest.raises(UserError):
        fit_form("rl", [1.0], [1.0, 2.0], "a")


def curve(gold, proxy, kl=None):
    kl = kl or [i**2 / 4 for i in range(len(gold))]
    return [
        {"step": 10 * i, "kl": k, "proxy": p, "gold": g, "length": 10.0}
        for i, (g, p, k) in enumerate(zip(gold, proxy, kl, strict=True))
    ]


HACKS = curve([0.5, 0.7, 0.8, 0.6, 0.4, 0.3], [0, 1, 2, 3, 4, 5])
GROWS = curve([0.5, 0.6, 0.7, 0.75, 0.78, 0.8], [0, 1, 1.5, 1.8, 2, 2.1])


def test_hacked_needs_the_proxy_to_rise_while_gold_falls():
    assert hacked(HACKS) and not hacked(GROWS)
    assert not hacked(curve([0.5, 0.7, 0.8, 0.6, 0.4, 0.3], [5, 4, 3, 2, 1, 0]))  # both fell: something else
    assert not hacked(curve([0.5, 0.7, 0.8, 0.79, 0.79, 0.79], [0, 1, 2, 3, 4, 5]))  # less than a tenth
    assert not hacked(HACKS[:2])


def test_seeds_are_averaged_where_all_have_a_point():
    rows = mean_curve([HACKS, GROWS[:4]])
    assert [row["step"] for row in rows] == [0, 10, 20, 30]
    assert rows[1]["gold"] == pytest.approx(0.65) and rows[1]["seeds"] == 2
    half = 12.706 * (0.1 / 2**0.5) / 2**0.5  # t(1) = 12.706; the sd of .7 and .6 is .0707
    assert rows[1]["gold_ci95"] == pytest.approx([0.65 - half, 0.65 + half], abs=1e-3)
    assert best_gold(rows)["step"] == 20 and "gold_ci95" not in mean_curve([HACKS])[0]


def texts(words):
    return {f"p{i}": " ".join(["so"] * (words + i % 3)) for i in range(20)}


def test_the_verdict_names_the_kl_and_what_is_exploited():
    runs = [
        RunCurve(0.0, s, HACKS, texts(5), {k: t + " I hope this helps you." for k, t in texts(30).items()})
        for s in (0, 1)
    ]
    runs += [RunCurve(0.1, s, GROWS, texts(5), texts(5)) for s in (0, 1)]
    best_of_n = [
        {"n": n, "kl": np.log(n) - (n - 1) / n, "proxy": n**0.2, "gold": 0.5 + n * 0.01} for n in (1, 2, 4, 8, 16)
    ]
    found = summarize(runs, best_of_n)
    free, held = found["groups"]
    assert (free["hacked_seeds"], held["hacked_seeds"]) == (2, 0) and free["best"]["step"] == 20
    assert "proxy up (2.00 → 5.00), gold down (0.80 → 0.30) since KL = 1.0, on 2 of 2 seeds" in found["verdict"]
    assert "hope this helps you" in found["verdict"] and "answers' words" in found["verdict"]
    assert {row["behavior"]: row["changed"] for row in held["shift"]}["words"] is False
    assert found["fits"].keys() == {"rl", "best-of-n"} and found["fits"]["rl"]["points"] == 20
    calm = summarize(runs[2:])
    assert "did not show" in calm["verdict"] and summarize([])["verdict"] == "No run to judge."


def test_samples_stand_at_the_marks_that_the_run_came_near():
    rows = [
        {"step": p["step"], "prompt_id": name, "text": f"{name} at {p['step']}", "proxy": 0.0, "gold": 0.0}
        for p in HACKS
        for name in ("a", "b", "c")
    ]
    marks = samples_at_marks(rows, HACKS)
    assert [m["mark"] for m in marks] == [1.0, 2.0, 4.0, 8.0] and len(marks[0]["samples"]) == 2
    assert [m["step"] for m in marks] == [20, 30, 40, 50] and marks[0]["samples"][0]["text"] == "a at 20"
