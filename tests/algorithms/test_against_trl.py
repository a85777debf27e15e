"""The same losses and gradients as TRL's trainers compute, where TRL is installed."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from tutelage.algorithms.dpo import dpo_loss, robust_dpo_loss
from tutelage.algorithms.ipo import ipo_loss
from tutelage.algorithms.kto import kl_baseline, kto_loss
from tutelage.algorithms.orpo import log_odds_ratio
from tutelage.algorithms.simpo import simpo_loss

pytest.importorskip("trl", reason="TRL is not installed")

LENGTHS = torch.tensor([3, 5, 2, 4, 1, 5])  # tokens of three chosen answers, then of three rejected ones
TOKENS = 6


def accelerator():
    same = lambda x: x  # noqa: E731
    return SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)


class Outputs:
    """What a model with a fused head returns: log-probabilities [N, L - 1], zero outside of the completion."""

    def __init__(self, log_probs):
        self.log_probs = log_probs
        self.entropy = self.mean_logits = torch.zeros_like(log_probs)
        self.is_top1 = torch.zeros_like(log_probs, dtype=torch.bool)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    mask = torch.arange(TOKENS) >= TOKENS - LENGTHS[:, None]
    mask[:, 0] = False
    log_probs = -3 * torch.rand(len(LENGTHS), TOKENS - 1, generator=generator, dtype=torch.float64) * mask[:, 1:]
    reference = -8 * torch.rand(len(LENGTHS), generator=generator, dtype=torch.float64)
    ids = torch.ones(len(LENGTHS), TOKENS, dtype=torch.int64)
    return log_probs, reference, {"input_ids": ids, "attention_mask": ids, "completion_mask": mask.long()}


def trainer(**values):
    common = {
        "model": SimpleNamespace(training=True), "accelerator": accelerator(), "aux_loss_enabled": False, "ld_alpha": None,
        "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "loss_weights": [1.0], "use_weighting": False,
        "_metrics": defaultdict(lambda: defaultdict(list)), "_total_train_tokens": 0, "_tp_size": 1, "beta": 0.1,
    }  # fmt: skip
    return SimpleNamespace(**{**common, **values})


@pytest.mark.parametrize(
    ("name", "ours", "per_token"),
    [
        ("sigmoid", lambda w, x: dpo_loss(w, x, 0.1), False),
        ("robust", lambda w, x: robust_dpo_loss(w, x, 0.1, 0.2), False),
        ("ipo", lambda w, x: ipo_loss(w, x, 0.1), True),
        ("sigmoid_norm", lambda w, x: dpo_loss(w, x, 0.1), True),
    ],
)
def test_pairwise(batch, name, ours, per_token):
    from trl.trainer.dpo_trainer import DPOTrainer

    log_probs, reference, inputs = batch
    inputs = {**inputs, "ref_chosen_logps": reference[:3], "ref_rejected_logps": reference[3:]}
    theirs_at, ours_at = log_probs.clone().requires_grad_(), log_probs.clone().requires_grad_()
    stub = trainer(loss_types=[name], label_smoothing=0.2)
    theirs = DPOTrainer._compute_loss(stub, lambda **_: Outputs(theirs_at), inputs, False)

    log_ratio = ours_at.sum(1) - reference
    if per_token:
        log_ratio = log_ratio / inputs["completion_mask"].sum(1)
    mine = ours(log_ratio[:3], log_ratio[3:]).mean()
    torch.testing.assert_close(mine, theirs)
    mine.backward()
    theirs.backward()
    torch.testing.assert_close(ours_at.grad, theirs_at.grad)


def test_kto(batch):
    from trl.trainer.kto_trainer import KTOTrainer

    log_probs, reference, inputs = batch
    labels = torch.tensor([True, False, False, True, True, False])
    mismatched = torch.tensor([-1.0, 4.0, 2.0, 0.5, 1.0, -0.3], dtype=torch.float64)
    inputs = {**inputs, "label": labels, "ref_logps": reference, "ref_KL_logps": torch.zeros_like(mismatched)}
    theirs_at, ours_at = log_probs.clone().requires_grad_(), log_probs.clone().requires_grad_()
    stub = trainer(
        calculate_KL=True,
        loss_type="kto",
        desirable_weight=1.5,
        undesirable_weight=0.7,
        _compute_kl_logps=lambda model, batch: mismatched,
    )
    theirs = KTOTrainer._compute_loss(stub, lambda **_: Outputs(theirs_at), inputs, False)
    mine = kto_loss(ours_at.sum(1) - reference, labels, kl_baseline(mismatched), 0.1, 1.5, 0.7).mean()
    torch.testing.assert_close(mine, theirs.to(mine.dtype))
    mine.backward()
    theirs.backward()
    torch.testing.assert_close(ours_at.grad, theirs_at.grad)


def test_simpo_and_orpo(batch):
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    log_probs, _, inputs = batch
    mean = (log_probs.sum(1) / inputs["completion_mask"].sum(1)).float()
    settings = {"alpha": 0.0, "loss_type": "simpo", "simpo_gamma": 1.0, "label_smoothing": 0.0, "beta": 2.0}
    losses, *_ = CPOTrainer.cpo_loss(trainer(**settings), mean[:3], mean[3:])
    torch.testing.assert_close(simpo_loss(mean[:3], mean[3:], 2.0, 1.0), losses)
    *_, ratio = ORPOTrainer.odds_ratio_loss(trainer(), mean[:3], mean[3:])
    torch.testing.assert_close(log_odds_ratio(mean[:3], mean[3:]).mean(), ratio)
