"""What every training stage does around its steps: the run folder, resuming, logging, saving, stopping."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from tutelage.configs import TrainingConfig, to_mapping
from tutelage.data.batches import step_seed
from tutelage.engine.distributed import agreed, from_main
from tutelage.engine.memory import peak_rss_bytes
from tutelage.engine.sharding import prepare, read_state, write_state
from tutelage.errors import UserError
from tutelage.models import Policy, ScalarModel
from tutelage.processes import rank
from tutelage.runs import Interrupt, Interrupted, Progress, Run, finished
from tutelage.runs.lineage import write_lineage

Save = Callable[[Path], None]


class Session:
    """`for step in session.steps(): ...; session.done(step, row, save)`.

    Everything random in step k is seeded from (seed, k), so that a resumed run repeats the numbers. What a stage
    remembers from step to step goes into `done`'s state and comes back as `session.state`.
    """

    def __init__(self, config: TrainingConfig, stage: str, total: int, label: str | None = None):
        self.config, self.total = config, total
        out, options = config.out or f"runs/{stage}", to_mapping(config)
        self.run = _open(out, stage, options, config.resume, total)
        self.progress = Progress(total, label or self.run.path.name, done=self.run.start_step)
        self.shown: dict[str, float] = {}  # a number that is not in every row stays until the next
        self.interrupt = Interrupt()
        saved = self.run.resume_state()
        self.state = read_state(saved) if saved else {}
        self.tokens = int(self.state.get("num_tokens", 0))
        self.best = float(self.state.get("best", float("-inf")))
        self.checkpoint: Path | None = self.run.resume_model()

    def __enter__(self) -> Self:
        self.interrupt.__enter__()
        self.progress.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.__exit__(kind, error, trace)
        self.interrupt.__exit__(kind, error, trace)
        if isinstance(error, UserError):
            self.run.abandon()

    def prepare(self, *models: Policy | ScalarModel) -> None:
        """Make models ready to be trained the way the run asks for; an optimizer is made after this."""
        for role in models:
            prepare(role.model, self.config.parallel, self.config.activation_checkpointing)

    def steps(self) -> Iterator[int]:
        """Numbers of the steps still to do, from 1."""
        for step in range(self.run.start_step + 1, self.total + 1):
            names = ("torch", step, rank()) if rank() else ("torch", step)  # processes drop different elements
            torch.manual_seed(step_seed(self.config.seed, *names))
            yield step

    def done(
        self,
        step: int,
        row: dict[str, Any],
        write_model: Callable[[Path, bool], None],
        state: dict[str, Any],
        show: tuple[str, ...] = ("loss",),
        held_out: float | None = None,
    ) -> None:
        """Log a step; save when due, at the end, when the user wants to stop, and when `held_out` is the best so far."""
        self.run.log({"step": step, "num_tokens": self.tokens, **row})
        self.shown |= {name.removeprefix("objective/").replace("/", " "): row[name] for name in show if name in row}
        self.progress.update(step, **self.shown)
        last = step == self.total
        stop = agreed(self.interrupt.requested)
        best = held_out is not None and held_out > self.best
        if best and held_out is not None:
            self.best = held_out
        if last or best or step % self.config.save_every == 0 or stop:
            verify = last or self.checkpoint is None
            self.checkpoint = self.run.save(
                step,
                lambda folder: write_model(folder, verify),
                partial(write_state, {**state, "num_tokens": self.tokens, "best": self.best}),
                best=best,
            )
        if stop and not last:
            raise Interrupted(self.run.path, step)

    def finish(self, inputs: dict[str, Path | str | None], **summary: Any) -> dict[str, Any]:
        """Write lineage and summary, which is returned; a run that was finished before keeps its own."""
        done = from_main(lambda: finished(self.run.path) or self._finish(inputs, summary))
        if agreed(self.interrupt.requested):  # during the last step: what comes after this stage is not begun
            raise Interrupted(self.run.path, self.total)
        return done

    def _finish(self, inputs: dict[str, Path | str | None], summary: dict[str, Any]) -> dict[str, Any]:
        assert self.checkpoint is not None
        output = self.run.best() or self.checkpoint
        write_lineage(self.run.path, inputs=inputs, output=output)
        measured = {"steps": self.total, "tokens": self.tokens, "peak_rss_bytes": peak_rss_bytes()}
        return self.run.finish({"checkpoint": str(output), **measured, **summary})


def _open(out: str, stage: str, options: dict[str, Any], resume: bool, total: int) -> Run:
    """The run's folder: the main process opens and writes it, the others follow."""
    opened: list[Run] = []

    def work() -> dict[str, Any]:
        opened.append(Run.open(out, stage=stage, config=options, resume=resume, total=total))
        return opened[0].position

    position = from_main(work)
    return opened[0] if opened else Run.following(out, stage, position)
