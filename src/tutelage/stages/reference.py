"""Log-probabilities of answers under a model that does not change: computed once, kept in the run's folder.

The file holds a key of what the numbers depend on beside the answers, then one line a chunk, which names each answer
by the hash of its tokens: a run that was killed on the way goes on after the last whole line.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tutelage.data.batches import rank_batches
from tutelage.data.templates import Rendered
from tutelage.engine.distributed import summed
from tutelage.engine.packing import offsets_of, segment_sum
from tutelage.engine.sharding import whole
from tutelage.models import Policy
from tutelage.processes import is_main
from tutelage.runs import Progress, write_text
from tutelage.runs.lineage import folder_hash
from tutelage.stages.language_modeling import token_logprobs

CHUNK = 256  # answers a line


def answer_logprobs(policy: Policy, answers: Sequence[Rendered]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability [N] of each answer, summed over its tokens, their numbers [N], and their entropies [T]."""
    logprobs_T, entropy_T = token_logprobs(policy, answers)
    tokens_N = torch.tensor([sum(r.loss_mask[1:]) for r in answers])
    return segment_sum(logprobs_T, offsets_of(tokens_N)), tokens_N, entropy_T


@torch.no_grad()
def frozen_logprobs(policy: Policy, answers: Sequence[Rendered], micro_tokens: int) -> list[float]:
    """The sums alone, without gradient, in micro-batches."""
    found = [0.0] * len(answers)
    with whole(policy.model):
        for micro in rank_batches([len(r.input_ids) for r in answers], micro_tokens):
            sums_N, _, _ = answer_logprobs(policy, [answers[i] for i in micro])
            for i, value in zip(micro, sums_N.tolist(), strict=True):
                found[i] = value
    return list(summed(*found))


def reference_logprobs(
    run: Path, source: Path, load: Callable[[], Policy], answers: Sequence[Rendered], dtype: str, micro_tokens: int
) -> list[float]:
    """Log-probability of each answer under the checkpoint `source`; `load` is called only where some are missing.

    dtype: how it computes, in words: it is a part of the key.
    """
    path, key = run / "reference.jsonl", f"{folder_hash(source)} {dtype} {micro_tokens}"
    names = [_name(one) for one in answers]
    known = _read(path, key)
    missing = {name: one for name, one in zip(names, answers, strict=True) if name not in known}
    if missing:
        if is_main():
            write_text(path, "".join(json.dumps(row) + "\n" for row in ({"key": key}, known)))
        reference = load()
        reference.model.eval()
        with Progress(len(missing), "reference", unit="answer") as bar:
            for start in range(0, len(missing), CHUNK):
                chunk = dict(list(missing.items())[start : start + CHUNK])
                values = frozen_logprobs(reference, list(chunk.values()), micro_tokens)
                found = dict(zip(chunk, values, strict=True))
                if is_main():
                    with open(path, "a", encoding="utf-8") as file:
                        file.write(json.dumps(found) + "\n")
                known |= found
                bar.update(start + len(chunk))
    return [known[name] for name in names]


def _name(answer: Rendered) -> str:
    """A hash of the tokens with their mask: it changes with the data, the template and the maximum length."""
    return hashlib.blake2b(repr((answer.input_ids, answer.loss_mask)).encode(), digest_size=10).hexdigest()


def _read(path: Path, key: str) -> dict[str, float]:
    """What an earlier sitting computed for the same key."""
    found: dict[str, float] = {}
    if not path.exists():
        return found
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        if json.loads(lines[0]).get("key") != key:
            return found
        for line in lines[1:-1]:
            found |= json.loads(line)
    except ValueError:  # a line that was cut off
        pass
    return found
