"""`tutelage run RECIPE` and `tutelage quickstart`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from tutelage.cli.options import show
from tutelage.configs import to_mapping
from tutelage.errors import UserError
from tutelage.recipe import load_recipe


@dataclass(kw_only=True)
class RunOptions:
    """Run a recipe's stages one after another, then write report.json and report.html."""

    recipe: Annotated[str, tyro.conf.Positional]
    """The recipe file."""
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
    if verb == "quickstart":
        arguments = [str(Path(__file__).parents[1] / "recipes" / "quickstart.yaml"), *arguments]
    options = tyro.cli(RunOptions, prog=f"tutelage {verb}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    recipe = load_recipe(
        Path(options.recipe),
        model=options.model,
        data=options.data,
        out=options.out,
        seed=options.seed,
        resume=options.resume,
        max_steps=options.max_steps,
    )
    if options.dry_run:
        print(yaml.safe_dump({stage: {"verb": v, **to_mapping(c)} for stage, v, c in recipe.stages}, sort_keys=False))
        return None
    if (recipe.out / "recipe.yaml").exists() and not options.resume:
        raise UserError(
            "holds a run already", where=str(recipe.out), mend="add --resume to go on with it, or choose another --out"
        )
    from tutelage.stages.recipe_run import run_recipe

    report = run_recipe(recipe, command=f"tutelage {verb} {' '.join(arguments)}")
    show(f"\nthe report is {recipe.out / 'report.html'}")
    return report
