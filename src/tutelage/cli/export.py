"""`tutelage export --model RUN --out FOLDER`: a run's checkpoint as a plain Hugging Face folder."""

from dataclasses import dataclass
from typing import Any

from tutelage.cli.options import parse_words, show
from tutelage.errors import UserError


@dataclass(kw_only=True, frozen=True)
class ExportOptions:
    """Copy a checkpoint out of a run, load the copy with plain `transformers` and compare its scores."""

    model: str = ""
    """A run's folder (its latest checkpoint), or a checkpoint: RUN/checkpoints/best, say."""
    out: str = ""
    """The folder to write; it must not be there yet."""
    json: bool = False
    """Print one JSON object last."""

    def __post_init__(self) -> None:
        for name in ("model", "out"):
            if not getattr(self, name):
                mend = "tutelage export --model RUN --out FOLDER"
                raise UserError("is needed", where=f"option --{name}", mend=mend)


def main(verb: str, arguments: list[str]) -> dict[str, Any]:
    options = parse_words(ExportOptions, verb, arguments)
    from tutelage.models import export_model

    made = export_model(options.model, options.out)
    show(f"export: {made['role']} from {made['source']} is in {made['out']}; loaded again, it scores the same")
    return made
