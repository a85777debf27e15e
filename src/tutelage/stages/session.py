"""What every training stage does around its steps: the run folder, resuming, logging, saving, stopping."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import torch

from tutelage import __version__
from tutelage.configs import TrainingConfig, to_mapping
from tutelage.data.batches import step_seed
from tutelage.engine.distributed import agreed, from_main, require_equal
from tutelage.engine.memory import peak_gpu_bytes, peak_rss_bytes
from tutelage.engine.sharding import prepare, read_state, write_state
from tutelage.engine.watchdog import Watchdog, phase
from tutelage.errors import UserError
from tutelage.models import Policy, ScalarModel, StepModel
from tutelage.processes import is_main, rank, world_size
from tutelage.runs import Interrupt, Interrupted, Progress, Run, finished
from tutelage.runs.lineage import write_lineage
from tutelage.runs.rollback import Rollback, RolledBack, is_spike, note, position, rollbacks

Save = Callable[[Path], None]
WATCHED = {"loss", "objective/kl"}  # numbers whose spikes are looked for


class Session:
    """`for step in session.steps(): ...; session.done(step, row, save)`.

    Everything random in step k is seeded from (seed, k), so that a resumed run repeats the numbers. What a stage
    remembers from step to step goes into `done`'s state and comes back as `session.state`.
    """

    def __init__(self, config: TrainingConfig, stage: str, total: int, label: str | None = None):
        self.config, self.total = config, total
        out, options = config.out or f"runs/{stage}", to_mapping(config)
        require_equal(f"{stage}, before the first step", {**options, "steps": total, "version": __version__})
        self.run = _open(out, stage, options, config.resume, total)
        self.progress = Progress(total, label or self.run.path.name, done=self.run.start_step)
        self.shown: dict[str, float] = {}  # a number that is not in every row stays until the next
        self.interrupt = Interrupt()
        saved = self.run.resume_state()
        self.state = read_state(saved) if saved else {}
        self.tokens = int(self.state.get("num_tokens", 0))
        self.best = float(self.state.get("best", float("-inf")))
        self.checkpoint: Path | None = self.run.resume_model()
        self.saved_step = self.run.start_step
        self.watchdog = Watchdog(self.run.path, config.stall_seconds)
        self.rolled_back = from_main(lambda: rollbacks(self.run.path))
        self.trained_at: float | None = None  # seconds at which the step's update was done, where a measurement follows
        self.history: dict[str, list[float]] = {name: [] for name in WATCHED}

    def __enter__(self) -> Self:
        self.watchdog.start()
        self.interrupt.__enter__()
        self.progress.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.__exit__(kind, error, trace)
        self.interrupt.__exit__(kind, error, trace)
        self.watchdog.stop()
        if isinstance(error, UserError):
            self.run.abandon()
        broken = isinstance(error, FloatingPointError) and self._may_roll_back()
        if broken or isinstance(error, RolledBack):
            self.run.release()
        elif isinstance(error, Exception) and not isinstance(error, Interrupted):
            self.run.note_failure(error)
        if broken:  # a gradient that is not finite: it changed nothing
            self._roll_back(self.watchdog.step, str(error))

    def prepare(self, *models: Policy | ScalarModel | StepModel) -> None:
        """Make models ready to be trained the way the run asks for; an optimizer is made after this."""
        for role in models:
            if world_size() > 1:
                require_equal("models, before the first step", _weights(role))
            prepare(role.model, self.config.parallel, self.config.activation_checkpointing)

    def position(self, step: int) -> int:
        """Which batch (from 0) a step takes."""
        return position(self.rolled_back, step)

    def steps(self) -> Iterator[int]:
        """Numbers of the steps still to do, from 1."""
        for step in range(self.run.start_step + 1, self.total + 1):
            names = ("torch", step, rank()) if rank() else ("torch", step)  # processes drop different elements
            torch.manual_seed(step_seed(self.config.seed, *names))  # of the GPU too
            self.watchdog.step = step
            with phase("training"):
                yield step

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Around what only measures the model: the step's `seconds` end where this begins."""
        self.trained_at = round(self.run.elapsed(), 4)
        with phase("measuring"):
            yield

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
        if fault := self._fault(row):
            self._roll_back(step, fault)
        until = {} if self.trained_at is None else {"seconds": self.trained_at}
        self.trained_at = None
        self.run.log({"step": step, **until, "num_tokens": self.tokens, **row})
        self.shown |= {name.removeprefix("objective/").replace("/", " "): row[name] for name in show if name in row}
        self.progress.update(step, **self.shown)
        last = step == self.total
        stop = agreed(self.interrupt.requested)
        best = held_out is not None and held_out > self.best
        if best and held_out is not None:
            self.best = held_out
        if last or best or step % self.config.save_every == 0 or stop:
            verify = last or self.checkpoint is None
            with phase("saving"):
                self.checkpoint = self.run.save(
                    step,
                    lambda folder: write_model(folder, verify),
                    partial(write_state, {**state, "num_tokens": self.tokens, "best": self.best}),
                    best=best,
                )
            self.saved_step = step
        if stop and not last:
            raise Interrupted(self.run.path, step)

    def _fault(self, row: dict[str, Any]) -> str | None:
        """What is broken in a step's numbers: the same on every process, which all have the same row."""
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                return f"{name} is {value}"
        for name in WATCHED & row.keys():
            if self.config.spike and is_spike(self.history[name], row[name], self.config.spike):
                return f"{name} is {row[name]:.3g}, a spike above its median of {median(self.history[name]):.3g}"
            self.history[name].append(row[name])
        return None

    def _may_roll_back(self) -> bool:
        return bool(self.saved_step) and len(self.rolled_back) < self.config.rollbacks

    def _roll_back(self, step: int, fault: str) -> None:
        """Leave the stage for its last checkpoint; where there is none, or too often already, say so and go on."""
        if not self._may_roll_back():
            print(f"\nalarm, step {step}: {fault}", file=sys.stderr)
            return
        if is_main():
            note(self.run.path, Rollback(step, self.saved_step, fault))
        error = RolledBack(step, self.saved_step, fault)
        print(f"\n{error}", file=sys.stderr)
        raise error

    def finish(self, inputs: dict[str, Path | str | None], **summary: Any) -> dict[str, Any]:
        """Write lineage and summary, which is returned; a run that was finished before keeps its own."""
        done = from_main(lambda: finished(self.run.path) or self._finish(inputs, summary))
        if agreed(self.interrupt.requested):  # during the last step: what comes after this stage is not begun
            raise Interrupted(self.run.path, self.total)
        return done

    def _finish(self, inputs: dict[str, Path | str | None], summary: dict[str, Any]) -> dict[str, Any]:
        assert self.checkpoint is not None
        write_lineage(self.run.path, inputs=inputs, output=self.checkpoint)
        measured = {"steps": self.total, "tokens": self.tokens, "peak_rss_bytes": peak_rss_bytes()}
        measured |= {"peak_gpu_bytes": peak_gpu_bytes()} if peak_gpu_bytes() else {}
        return self.run.finish({"checkpoint": str(self.checkpoint), **measured, **summary})


def _weights(role: Policy | ScalarModel | StepModel) -> dict[str, Any]:
    """Every parameter's type, shape, and the sum of its bits."""

    def bits(parameter: torch.Tensor) -> int:
        return int(parameter.detach().flatten().contiguous().view(torch.int16).sum(dtype=torch.int64))

    return {name: (str(p.dtype), tuple(p.shape), bits(p)) for name, p in role.model.named_parameters()}


def _open(out: str, stage: str, options: dict[str, Any], resume: bool, total: int) -> Run:
    """The run's folder: the main process opens and writes it, the others follow."""
    opened: list[Run] = []

    def work() -> dict[str, Any]:
        opened.append(Run.open(out, stage=stage, config=options, resume=resume, total=total))
        return opened[0].position

    position = from_main(work)
    return opened[0] if opened else Run.following(out, stage, position)
