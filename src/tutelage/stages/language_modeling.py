"""The gradient of the mean token loss over a batch, micro-batch by micro-batch: shared by pretrain, sft and ptx."""

from collections.abc import Sequence

import torch

from tutelage.data.batches import rank_batches
from tutelage.data.templates import Rendered
from tutelage.engine.distributed import summed
from tutelage.engine.memory import run_fitting
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.packing import pack
from tutelage.engine.sharding import whole
from tutelage.models import Policy


def backward_mean_nll(
    policy: Policy, batch: Sequence[Rendered], micro_tokens: int, optimizer: MasterAdam, scale: float = 1.0
) -> dict[str, float]:
    """Add the gradient of scale * (sum of -log p over the masked tokens of the batch) / (their number).

    Returns loss (unscaled mean, nats a token), entropy, mean token count.
    """
    batch = [r for r in batch if any(r.loss_mask[1:])]
    trained = sum(sum(r.loss_mask[1:]) for r in batch)
    nll = entropy_sum = 0.0

    def work(micro: list[int]) -> None:
        nonlocal nll, entropy_sum
        logprobs, entropy = token_logprobs(policy, [batch[i] for i in micro])
        (-scale * logprobs.sum() / trained).backward()
        optimizer.collect()
        nll -= float(logprobs.detach().sum())
        entropy_sum += float(entropy.sum())

    lengths = [len(r.input_ids) for r in batch]
    run_fitting(rank_batches(lengths, micro_tokens), lengths, work, optimizer.drop)
    nll, entropy_sum = summed(nll, entropy_sum)
    return {"loss": nll / trained, "entropy": entropy_sum / trained}


def token_logprobs(policy: Policy, batch: Sequence[Rendered]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies [M] of the masked tokens of some conversations, end to end."""
    packed = pack([r.input_ids for r in batch], share=True)
    mask = torch.tensor([m for r in batch for m in r.loss_mask])
    mask[packed.offsets[:-1]] = False  # nothing predicts a first token
    return policy.logprobs(packed, mask.nonzero()[:, 0])


@torch.no_grad()
def mean_nll(policy: Policy, data: Sequence[Rendered], micro_tokens: int) -> float:
    """Mean -log p of the masked tokens, nats."""
    total, count = 0.0, 0.0
    policy.model.eval()
    with whole(policy.model):
        for micro in rank_batches([len(r.input_ids) for r in data], micro_tokens):
            logprobs, _ = token_logprobs(policy, [data[i] for i in micro])
            total -= float(logprobs.sum())
            count += len(logprobs)
    total, count = summed(total, count)
    return total / count


def as_document(tokenizer_ids: list[int], max_length: int) -> Rendered:
    """Plain text: every token carries loss."""
    ids = tokenizer_ids[:max_length]
    return Rendered(ids, [True] * len(ids))
