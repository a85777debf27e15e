"""`tutelage VERB`: finds the verb, turns errors into messages and exit statuses.

0 done, 2 bad input or configuration, 1 a failure of ours, 130 stopped by Ctrl-C.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from shutil import which

from tutelage import __version__
from tutelage.errors import UserError, did_you_mean
from tutelage.processes import is_main, one_voice, rank, world_size

# verb -> (module with `main(verb, arguments)`, what it does)
VERBS = {
    "quickstart": ("tutelage.cli.recipes", "run the whole loop on the embedded world"),
    "run": ("tutelage.cli.recipes", "run a recipe: tutelage run recipes/quickstart.yaml"),
    "pretrain": ("tutelage.cli.stage", "train a base model on plain text"),
    "sft": ("tutelage.cli.stage", "fine-tune on demonstrations"),
    "sample": ("tutelage.cli.stage", "draw completions of prompts"),
    "label": ("tutelage.cli.stage", "rank completions by simulated labelers"),
    "reward": ("tutelage.cli.stage", "train a reward model on comparisons"),
    "ppo": ("tutelage.cli.stage", "optimize a policy against a reward model"),
    "dpo": ("tutelage.cli.stage", "train a policy on comparisons, without a reward model"),
    "ipo": ("tutelage.cli.stage", "the same with a finite target margin"),
    "kto": ("tutelage.cli.stage", "train a policy on single answers with thumbs up or down"),
    "orpo": ("tutelage.cli.stage", "fine-tuning and preference in one loss, no reference"),
    "simpo": ("tutelage.cli.stage", "preference on mean log-probabilities, no reference"),
    "rloo": ("tutelage.cli.stage", "like ppo, without a critic: answers to a prompt are each other's baseline"),
    "grpo": ("tutelage.cli.stage", "the same with rewards standardized within each prompt's answers"),
    "online-dpo": ("tutelage.cli.stage", "dpo on the policy's own answers, judged by a reward model"),
    "rejection": ("tutelage.cli.stage", "fine-tune on the reward model's best of n answers"),
    "cai": ("tutelage.cli.stage", "fine-tune on answers that a critic revised by a constitution"),
    "cai-label": ("tutelage.cli.stage", "compare answers by a constitution, without people"),
    "step-label": ("tutelage.cli.stage", "label the steps of solutions by completions from each"),
    "prm": ("tutelage.cli.stage", "train a process (or outcome) reward model on labeled steps"),
    "score": ("tutelage.cli.stage", "score each step of solutions, or answers, by a reward model"),
    "rerank": ("tutelage.cli.stage", "best of n solutions by process reward, outcome reward, majority"),
    "eval": ("tutelage.cli.stage", "win rates and behaviors of models"),
    "study": ("tutelage.cli.studies", "an experiment with its figure: tutelage study verbosity"),
    "lab": ("tutelage.cli.studies", "break RLHF on purpose, predict, explain and mend: tutelage lab no-kl"),
    "chat": ("tutelage.cli.chat", "talk to a model, or to two side by side"),
    "export": ("tutelage.cli.export", "copy a run's checkpoint out as a plain Hugging Face folder"),
    "serve": ("tutelage.cli.serve", "serve the pages, and models over OpenAI's HTTP API"),
    "doctor": ("tutelage.cli.machine", "what this machine has, and what will be slower on it"),
    "plan": ("tutelage.cli.machine", "memory and time of a verb or a recipe, before anything is loaded"),
    "data": ("tutelage.cli.data", "check, describe, import and export files of feedback"),
    "feedback": ("tutelage.cli.feedback", "people's labels: serve the pages, import, export, quality"),
    "template": ("tutelage.cli.template", "print a Slurm job, RayJob, Dockerfile, compose file or systemd unit"),
    "world": ("tutelage.cli.world", "show the embedded world, or build its base model"),
}

ALONE = {"study", "lab", "chat", "export", "serve", "data", "feedback", "world"}  # several would write over each other

BEGUN_AGAIN = ("study", "lab")  # what is done they do not do again, without an option


def usage() -> str:
    lines = [f"  {verb:<11} {about}" for verb, (_, about) in VERBS.items()]
    return "\n".join(
        ["usage: tutelage VERB [options]   (tutelage VERB --help)", "", *lines, "", "  --version   the version"]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"tutelage {__version__}")
        return
    verb = words[0]
    if verb not in VERBS:
        print(f"tutelage: unknown verb {verb!r}{did_you_mean(verb, list(VERBS))}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    sys.exit(_guarded(verb, words))


def _guarded(verb: str, words: list[str]) -> int:
    from tutelage.runs import Interrupted, is_disk_full
    from tutelage.runs.signals import end_on_termination

    end_on_termination()
    try:
        if world_size() > 1 and verb in ALONE:
            what = f"{verb} is one process, and {world_size()} were started"
            raise UserError(what, where="environment", mend="start it without torchrun, or unset WORLD_SIZE")
        with one_voice():
            result = import_module(VERBS[verb][0]).main(verb, words[1:])
        if world_size() > 1:
            from tutelage.engine.distributed import close

            close()
        if "--json" in words and result is not None and is_main():
            print(json.dumps(result, default=str, ensure_ascii=False), flush=True)
        return 0
    except UserError as error:
        print(f"{_speaker()}error: {error.message}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"{_speaker()}error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        if is_main():  # all of them stop at the same step
            print(f"stopped at step {error.step} of {error.path}{_how_to_go_on(verb, words)}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print(f"\nstopped{_how_to_go_on(verb, words)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has had enough; nothing may be flushed to it on leaving
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(f"{_speaker()}error: {str(error).splitlines()[0]}{_how_to_go_on(verb, words)}", file=sys.stderr)
        return 1


def _speaker() -> str:
    """Whose error it is, where there are several processes."""
    return f"rank {rank()}: " if world_size() > 1 else ""


def _how_to_go_on(verb: str, words: list[str]) -> str:
    """The command that resumes what was stopped, as it was typed; nothing for a verb that begins anew."""
    from tutelage.configs import STAGES, TrainingConfig

    again = words if verb in BEGUN_AGAIN or "--resume" in words else [*words, "--resume"]
    if verb not in ("quickstart", "run", *BEGUN_AGAIN) and not issubclass(STAGES.get(verb, object), TrainingConfig):
        return ""
    program = sys.argv[0] if Path(sys.argv[0]).name == "tutelage" and not which("tutelage") else "tutelage"
    start = [program]
    if world_size() > 1:
        here = os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))
        start = ["torchrun", "--nproc-per-node", here, "-m", "tutelage"]
    return f"; go on with:\n  {shlex.join([*start, *again])}"
