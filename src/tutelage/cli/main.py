"""`tutelage VERB`: finds the verb, turns errors into messages and exit statuses.

0 done, 2 bad input or configuration, 1 a failure of ours, 130 stopped by Ctrl-C.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from tutelage import __version__
from tutelage.errors import UserError, did_you_mean

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
    "eval": ("tutelage.cli.stage", "win rates and behaviors of models"),
    "chat": ("tutelage.cli.chat", "talk to a model, or to two side by side"),
    "data": ("tutelage.cli.data", "check, describe, import and export files of feedback"),
    "world": ("tutelage.cli.world", "show the embedded world, or build its base model"),
}


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
    from tutelage.runs import DiskFullError, Interrupted

    try:
        result = import_module(VERBS[verb][0]).main(verb, words[1:])
        if "--json" in words and result is not None:
            print(json.dumps(result, default=str, ensure_ascii=False), flush=True)
        return 0
    except UserError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    except DiskFullError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        again = words if "--resume" in words else [*words, "--resume"]
        print(f"stopped at step {error.step}; go on with:\n  tutelage {shlex.join(again)}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has had enough; nothing may be flushed to it on leaving
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
