"""Pretraining: a language model of plain text, as a base for everything after.

Where the paper starts from GPT-3, the embedded world starts here. Continues any Hugging Face model too.
"""

from typing import Any

from tutelage.algorithms.schedules import cosine_to_fraction
from tutelage.configs import PretrainConfig
from tutelage.data.batches import batch_order
from tutelage.data.sources import load_texts
from tutelage.engine.optimizer import MasterAdam
from tutelage.models import Policy, resolve, save_model
from tutelage.stages.language_modeling import as_document, backward_mean_nll
from tutelage.stages.loading import trained_policy
from tutelage.stages.session import Session


def run(config: PretrainConfig, policy: Policy | None = None) -> dict[str, Any]:
    """Train on `config.tokens` tokens of text; `policy` may be a fresh model."""
    # 1. The model and the text.
    fresh = policy
    policy = policy or trained_policy(config, config.model)
    texts = load_texts(config.data, config.tokens, policy.tokenizer, seed=config.seed)
    documents = [as_document(ids, config.max_length) for ids in texts if len(ids) > 1]

    # 2. As many steps as the tokens need.
    mean_length = sum(len(d.input_ids) for d in documents) / len(documents)
    total = config.max_steps or max(1, round(config.tokens / mean_length / config.batch_size))
    with Session(config, "pretrain", total) as session:
        if session.run.resume_model():
            policy = trained_policy(config, session.run.resume_model() or "")
        policy.model.train()
        session.prepare(policy)
        optimizer = MasterAdam(policy.own_parameters(), weight_decay=config.weight_decay, state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])

        # 3. Next-token loss, cosine schedule after a warm-up.
        for step in session.steps():
            batch = [
                documents[i]
                for i in batch_order(len(documents), config.batch_size, config.seed, session.position(step))
            ]
            rate = config.learning_rate * cosine_to_fraction(
                step - 1, total, config.warmup_steps, config.final_fraction
            )
            row = backward_mean_nll(policy, batch, config.micro_tokens, optimizer)
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            session.tokens += sum(len(d.input_ids) for d in batch)
            about = {
                "role": "policy",
                "stage": "pretrain",
                "parent": None if fresh else str(resolve(config.model)),
                "data": config.data,
            }
            session.done(
                step,
                row,
                lambda path, verify: save_model(path, policy, about, verify=verify),
                {"optimizer": optimizer.state()},
            )
        return session.finish(
            {"model": None if fresh else resolve(config.model), "data": config.data}, loss=session.run.last_row["loss"]
        )
