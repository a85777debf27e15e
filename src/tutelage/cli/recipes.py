"""`tutelage run RECIPE` and `tutelage quickstart`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from tutelage.cli.options import as_yaml, option, parse_words, show
from tutelage.cluster.placement import shown
from tutelage.errors import UserError
from tutelage.processes import is_main
from tutelage.recipe import check_models, load_recipe
from tutelage.runs import check_folder


@dataclass(kw_only=True)
class RunOptions:
    """Run a recipe's stages one after another, then write report.json and report.html.

    Any option of any stage can be set too: --STAGE.OPTION VALUE, as in --ppo.kl-coef 0.1 or --label.by world:length.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    """The recipe: a YAML file, or the name of one that comes with the program (quickstart)."""
    model: str | None = None
    """A Hugging Face folder in place of the recipe's model."""
    data: str | None = None
    """A file of comparisons in place of the recipe's data."""
    out: str | None = None
    """The folder to write; runs/NAME when not given."""
    seed: int | None = None
    """Seed in place of the recipe's."""
    max_steps: int | None = None
    """Stop every training stage after this many steps."""
    resume: bool = False
    """Skip what is finished and go on."""
    dry_run: bool = False
    """Print the resolved stages and stop."""
    json: bool = False
    """Print one JSON object last."""


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    words = ["quickstart", *arguments] if verb == "quickstart" else arguments
    stage_options, words = split_dotted(words)
    options = parse_words(RunOptions, verb, words)
    recipe = load_recipe(
        find_recipe(options.recipe),
        stage_options=stage_options,
        model=options.model,
        data=options.data,
        out=options.out,
        seed=options.seed,
        resume=options.resume,
        max_steps=options.max_steps,
    )
    if options.dry_run:
        for stage, name, config in recipe.stages:
            print(f"# {stage}: {name}\n{as_yaml(config)}")
        if recipe.cluster:
            print("\n".join(f"# {line}" for line in ("placement", *shown(recipe.cluster, recipe.stages))))
        return None
    check_models(recipe)
    check_folder(recipe.out)
    if is_main() and (recipe.out / "recipe.yaml").exists() and not options.resume:
        raise UserError(
            "holds a run already", where=str(recipe.out), mend="add --resume to go on with it, or choose another --out"
        )
    from tutelage.stages.recipe_run import run_recipe

    report = run_recipe(recipe, command=f"tutelage {verb} {' '.join(arguments)}")
    show(f"\nthe report is {recipe.out / 'report.html'}")
    return report


def find_recipe(name: str) -> Path:
    """The file, or else the recipe of that name that comes with the program."""
    path = Path(name)
    shipped = Path(__file__).parents[3] / "recipes" / f"{name}.yaml"
    return shipped if not path.exists() and path.suffix == "" and shipped.exists() else path


def split_dotted(words: list[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """`--ppo.kl-coef 0` → {"ppo": {"kl_coef": "0"}}, and the other words. Without a value it is a flag: true."""
    found: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        stage, dot, key = name.removeprefix("--").partition(".")
        if not word.startswith("--") or not dot:
            rest.append(word)
            continue
        if not stage or not key:
            raise UserError(f"unknown option {word}", mend="write --STAGE.OPTION VALUE, as in --ppo.kl-coef 0.1")
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        found.setdefault(stage, {})[option(key)] = value
    return found, rest
