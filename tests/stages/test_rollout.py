"""The passes forward that the rollout and the first update share."""

import pytest
import torch

from resumed import rows
from tutelage.configs import OnlineDPOConfig, PPOConfig, RLOOConfig
from tutelage.models import load_policy, load_scalar, save_model
from tutelage.stages import group_policy, ppo, rollout

RUNS = [
    (ppo.run, PPOConfig, {"inner_epochs": 2}),
    (group_policy.run, RLOOConfig, {}),
    (group_policy.run, OnlineDPOConfig, {}),
]


@pytest.mark.parametrize("run, config, more", RUNS)
def test_an_update_from_the_rollouts_own_passes_is_the_same(nano, tmp_path, monkeypatch, run, config, more):
    torch.manual_seed(0)
    reward = tmp_path / "reward"
    save_model(reward, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    kept = []
    own = rollout._own
    monkeypatch.setattr(rollout, "_own", lambda *args: kept.append(own(*args)) or kept[-1])

    def trained(name):
        values = {"batch_size": 8, "minibatch_size": 8, "group_size": 4, "max_new_tokens": 6, "learning_rate": 3e-3}
        values |= {"max_steps": 3, "warmup_steps": 0, "eval_every": 50, "eval_prompts": 4, "force": True, "seed": 3}
        values |= {"max_length": 96, "dtype": "float32", "missing_eos_penalty": 0.0, **more}
        places = {"model": str(nano), "reward_model": str(reward), "out": str(tmp_path / name)}
        saved = run(config(**places, **values))
        return rows(tmp_path / name), load_policy(saved["checkpoint"], "float32").model.state_dict()

    got, weights = trained("shared")
    assert sum(fresh is not None for _, fresh in kept) == 3  # of each step, not of held-out answers
    kept.clear()
    monkeypatch.setattr(rollout, "FRESH_PART", 10**9)
    wanted, others = trained("apart")
    assert all(fresh is None for _, fresh in kept)
    for a, b in zip(got, wanted, strict=True):
        assert all(a[k] == pytest.approx(b[k], rel=1e-4, abs=1e-5) for k in b if "/" in k and not k.startswith("time/"))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], atol=1e-5, rtol=1e-4)


def test_numbers_come_in_the_order_of_the_rollout(nano):
    """where [2, 0, 1] is not its own inverse: putting in and taking out differ."""
    policy = load_policy(nano, "float32")
    one_pass = [rollout.Pass([0], None, torch.tensor([1, 2, 3]), torch.tensor([2, 0, 1]))]
    policy.logprobs = lambda *rest: [torch.tensor([1.0, 2.0, 3.0], requires_grad=True) * 2] * 2
    models = rollout.Models(policy, None, None, None)
    for keep in (True, False):
        (logprobs, _, values), fresh = rollout._own(models, one_pass, 3, 1.0, keep)
        assert logprobs.tolist() == [4.0, 6.0, 2.0] and values.tolist() == [0.0] * 3 and not logprobs.requires_grad
        assert (fresh is not None) == keep
        if fresh:
            assert fresh.logprobs.tolist() == [4.0, 6.0, 2.0] and fresh.logprobs.requires_grad
