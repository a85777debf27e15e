"""A lesson on made-up runs: what shows is said with its numbers, what does not is said not to have shown."""

import json

import pytest

from tutelage.errors import UserError
from tutelage.studies import lab
from tutelage.studies.measures import Cell
from tutelage.studies.preparations import is_harmful, retemplate, select
from tutelage.studies.schema import find, load_scenario
from tutelage.world import suite


def cell(folder, golds, proxies):
    """A PPO run of 30 prompts whose gold and proxy are given step by step."""
    (folder / "ppo").mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "step": 4 * i,
            "prompt_id": f"p{n}",
            "text": f"answer {i}",
            "tokens": 9 + i,
            "kl": float(i * i),
            "proxy": p,
            "gold": g + n / 1000,
        }
        for i, (g, p) in enumerate(zip(golds, proxies, strict=True))
        for n in range(30)
    ]
    (folder / "ppo" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"ppo": {}, "reward": {"reward_model": {"accuracy": 0.66, "gate": "failed: not better than chance"}}}
    made = Cell({"ppo": folder / "ppo", "reward": folder}, results)
    made._samples["ppo"] = rows
    return made


HACKS = [0.5, 0.7, 0.8, 0.6, 0.4, 0.3], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
GROWS = [0.5, 0.6, 0.7, 0.75, 0.78, 0.8], [0.0, 1.0, 1.5, 1.8, 2.0, 2.1]


def learn(tmp_path, monkeypatch, broken, **more):
    def run_cell(stages, settings, **_):
        return cell(tmp_path / "runs", *(broken if settings["ppo.kl_coef"] == 0 else GROWS))

    monkeypatch.setattr(lab, "run_cell", run_cell)
    return lab.run_lesson(load_scenario(find("lab", "no-kl")), tmp_path / "out", tmp_path, **more)


def test_hacking_is_explained_with_its_numbers(tmp_path, monkeypatch):
    guesses = {"gold": "down", "proxy": "up", "peak": 12.0}
    result = learn(tmp_path, monkeypatch, HACKS, guesses=guesses, sure=80)
    assert result["effects"]["hacked"] == {"share": 1.0, "shown": True}
    (said,) = result["explanation"]
    assert "Since KL 4.0 the proxy rose by 3.00 and gold moved by -0.50" in said
    assert result["said"] == "2 of 3 right; you were 80 % sure"  # the best gold is at KL 4, not 12
    assert result["mended"]["gold.since_best"] == 0 and result["why_mend"] == ["a price on leaving the reference"]
    assert result["tripped"] == ["reward: the reward model's gate failed: not better than chance"]
    worst = result["texts"][0]
    assert worst["gold"] < worst["mended_gold"] and result["curves"]["broken"]["ppo"][2]["kl"] == 4
    assert json.loads((tmp_path / "out" / "lesson.json").read_text())["said"] == result["said"]


def test_what_did_not_show_is_said_not_to_have_shown(tmp_path, monkeypatch):
    result = learn(tmp_path, monkeypatch, GROWS)
    assert result["effects"]["hacked"]["shown"] is False and result["said"] == ""
    assert result["explanation"] == [
        "Not in this run: after its best gold changed by 0.00, at KL 25.0. More iterations, or 3 seeds?"
    ]


def test_an_effect_on_few_prompts_is_no_effect(tmp_path, monkeypatch):
    """Gold falls on one prompt of thirty only: most resamples lack it, or have it too rarely."""
    scenario = load_scenario(find("lab", "no-kl"))
    one = cell(tmp_path, GROWS[0], GROWS[1])
    for row in one._samples["ppo"]:
        if row["prompt_id"] == "p0" and row["step"] == 20:
            row["gold"] -= 2.0
    share = lab.effect_share(scenario, "hacked", [lab.resampled(scenario, one)])
    assert 0 < share < 0.9


def test_labels_on_harmful_prompts_are_found_by_their_words(tmp_path):
    harmful, benign = suite("harmful", "train", 20), suite("benign_lookalike", "train", 20)
    assert all(is_harmful({"messages": p.messages}) for p in harmful)
    assert not any(is_harmful({"messages": p.messages}) for p in benign)
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps({"id": p.id, "messages": p.messages}) + "\n" for p in [*harmful, *benign]))
    for share, count in ((1.0, 20), (0.8, 25), (0.5, 40), (0.1, 40)):  # no more of the others than there are
        (tmp_path / "out").mkdir(exist_ok=True)
        done = select(tmp_path / "out", seed=0, model="world", of=str(labels), harmful=share)
        assert (done["comparisons"], done["harmful"]) == (count, 20)
    with pytest.raises(UserError):
        select(tmp_path, seed=0, model="world", of=str(labels), harmful=0.0)
    with pytest.raises(UserError, match="no template"):
        retemplate(tmp_path, seed=0, model="world", of="world", style="other")


def test_a_number_has_the_interval_that_its_stage_gave(tmp_path):
    share = {"value": 0.3, "ci95": [0.2, 0.4]}
    rates = [{"policy": "a", "baseline": "b", "judge": "gold", "win_rate": 0.7, "ci95": [0.6, 0.8]}]
    results = {
        "eval": {"behaviours": {"ppo": {"words": share, "corpus_loss": share, "plain": 4.0}}, "win_rates": rates},
        "reward": {"reward_model": {"accuracy": 0.66, "ci95": [0.6, 0.7], "length_accuracy_ci95": [0.5, 0.6]}},
        "label": {"agreement": 0.7, "agreement_ci95": [0.65, 0.75], "best": {"value": 1.0, "ci95": [0.9, 1.1]}},
    }
    one = Cell(dict.fromkeys(results, tmp_path), results)
    assert one.interval({"behavior": "words", "of": "ppo"}) == one.interval({"corpus_loss": "ppo"}) == [0.2, 0.4]
    assert (
        one.interval({"behavior": "plain", "of": "ppo"}) is None
        and one.interval({"behavior": "words", "of": "x"}) is None
    )
    assert one.interval({"win_rate": ["a", "b"]}) == [0.6, 0.8]
    assert one.interval({"win_rate": ["b", "a"]}) == pytest.approx([0.2, 0.4])
    assert one.interval({"card": "accuracy"}) == [0.6, 0.7] and one.interval({"card": "length_accuracy"}) == [0.5, 0.6]
    assert one.interval({"result": "agreement", "stage": "label"}) == [0.65, 0.75]
    assert one.interval({"result": "best.value", "stage": "label"}) == [0.9, 1.1]
    assert one.interval({"metric": "loss", "stage": "label"}) is None


def test_intervals_are_over_prompts_with_one_seed_and_over_seeds_with_several(tmp_path):
    scenario = load_scenario(find("lab", "no-kl"))
    cells = [cell(tmp_path / str(i), [g + i / 10 for g in HACKS[0]], HACKS[1]) for i in range(3)]
    one = lab.intervals(scenario, cells[:1], [lab.resampled(scenario, cells[0])])
    low, high = one["gold.last"]
    assert low < cells[0].measure({"curve": "gold"}) < high and high - low < 0.02  # gold differs by 0.029 over prompts
    several = lab.intervals(scenario, cells, [])
    # 0.3, 0.4, 0.5 (and what prompts add): sd 0.1, t(2) = 4.3027
    assert several["gold.last"] == pytest.approx([0.4145 - 0.2484, 0.4145 + 0.2484], abs=1e-3)
