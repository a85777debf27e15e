"""Time a trainer of TRL: python trl_train.py TASK --model FOLDER --pairs FILE [--steps 6] [--batch 8] [--max-length 512].

TASK: sft, reward, dpo, rloo. FILE: lines of {"prompt", "chosen", "rejected"}, each a list of messages. Prints one JSON
line. Only non-padding tokens count; the first step warms up and is left out. Runs in the environment of the peers.
"""

import argparse
import json
import resource
import tempfile
import time

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """Seconds from the end of the first optimizer step to the end of the last."""

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        if state.global_step == 1:
            self.start = now
        self.seconds = now - self.start


def trainer_of(args, rows):
    """The trainer with its settings at the batch, length and type asked for, all else as TRL has it."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.padding_side = "left" if args.task == "rloo" else "right"
    if args.task == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=1, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    common = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": args.batch,
        "max_steps": args.steps,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": args.dtype == "bfloat16",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 1e-5,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    if args.task == "sft":
        data = [{"messages": row["prompt"] + row["chosen"]} for row in rows]
        kind, config = trl.SFTTrainer, trl.SFTConfig(max_length=args.max_length, **common)
    elif args.task == "reward":
        data = [{key: row["prompt"] + row[key] for key in ("chosen", "rejected")} for row in rows]
        kind, config = trl.RewardTrainer, trl.RewardConfig(max_length=args.max_length, **common)
    elif args.task == "dpo":
        data, kind, config = rows, trl.DPOTrainer, trl.DPOConfig(max_length=args.max_length, **common)
    else:
        data = [{"prompt": row["prompt"]} for row in rows]
        config = trl.RLOOConfig(max_completion_length=args.new_tokens, num_generations=4, beta=0.05, **common)
        return trl.RLOOTrainer(
            model,
            reward_funcs=lambda completions, **_: [float(len(c[0]["content"])) / 100 for c in completions],
            args=config,
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
        )
    return kind(model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["sft", "reward", "dpo", "rloo"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    torch.manual_seed(0)
    with open(args.pairs) as lines:
        rows = [json.loads(line) for line in lines][: args.steps * args.batch]
    trainer, clock, tokens = trainer_of(args, rows), Clock(), 0
    trainer.add_callback(clock)
    inner = trainer.training_step

    def counted(model, inputs, *rest, **more):
        nonlocal tokens
        mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
        if trainer.state.global_step >= 1 and mask is not None:
            tokens += int(mask.sum())
        return inner(model, inputs, *rest, **more)

    trainer.training_step = counted
    result = trainer.train()
    samples = (args.steps - 1) * args.batch
    row = {"peer": f"TRL {trl.__version__}", "transformers": transformers.__version__, "torch": torch.__version__}
    row |= {"tokens_per_second": tokens / clock.seconds, "samples_per_second": samples / clock.seconds}
    row |= {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "loss": result.training_loss}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
