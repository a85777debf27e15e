"""Fills a comparison in the background: endpoints beside each other, local checkpoints one after another."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.data.foreign import prompt_id
from tutelage.data.outputs import read_outputs
from tutelage.errors import UserError
from tutelage.judges.cache import Cache, Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.records import Prompt
from tutelage.workbench.comparisons import Column, Comparison, now
from tutelage.workbench.models import Models, checkpoint_folder, is_endpoint, run_of

TOGETHER = 4  # prompts that a local model answers before their cells are shown
ASKED_TOGETHER = 8  # prompts sent to an endpoint before the stop button is looked at


def column(name: str, spec: str, runs: Path) -> Column:
    """A model by its spec: what kind it is, and a hash of what its answers depend on."""
    from tutelage.runs.lineage import file_hash, folder_hash

    if is_endpoint(spec):
        return Column(name, spec, "endpoint", spec)
    if spec.endswith((".jsonl", ".json", ".jsonl.gz", ".parquet")) and Path(spec).is_file():
        return Column(name, spec, "outputs", file_hash(Path(spec))[:16])
    return Column(name, spec, "local", folder_hash(checkpoint_folder(spec))[:16], run_of(spec, runs))


def reproducible(one: Column) -> bool:
    """Whether the very weights (or the file) that answered are still there."""
    try:
        return one.kind != "endpoint" and column(one.name, one.spec, Path()).identity == one.identity
    except UserError:
        return False


class Filling:
    """The work on one comparison; `stop` ends it after what is being computed."""

    def __init__(self, comparison: Comparison, models: Models):
        self.comparison, self.models = comparison, models
        self.stopping = threading.Event()
        self.failure = ""
        self.tried: set[tuple[int, int, int, str]] = set()  # what this filling asked judges; failures wait for the next
        self.thread = threading.Thread(target=self._run, name=f"compare {comparison.id}", daemon=True)
        self.thread.start()

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def stop(self) -> None:
        self.stopping.set()

    def _run(self) -> None:
        columns = self.comparison.columns
        endpoints = [
            threading.Thread(target=self._guarded, args=(self._ask, c), daemon=True)
            for c, one in enumerate(columns)
            if one.kind == "endpoint"
        ]
        for thread in endpoints:
            thread.start()
        for c, one in enumerate(columns):
            if one.kind == "outputs":
                self._guarded(self._read, c)
        local = [c for c, one in enumerate(columns) if one.kind == "local"]
        # A few prompts of every model before the next few: rows become whole, and can be voted on, early.
        for start in range(0, len(self.comparison.prompts), TOGETHER):
            some = range(start, min(start + TOGETHER, len(self.comparison.prompts)))
            for c in local:
                if not self.stopping.is_set():
                    self._guarded(self._answer, c, [p for p in self.comparison.waiting(c) if p in some])
            self._guarded(self._judge)
        for thread in endpoints:
            thread.join()
        self._guarded(self._judge)
        with self.comparison.changed:  # the page learns that the work has ended
            self.comparison.revision += 1
            self.comparison.changed.notify_all()

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """A fault of one column, or of the judge, is shown and leaves the others alone."""
        try:
            work(*arguments)
        except Exception as error:
            reason = error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            if arguments:
                for p in self.comparison.waiting(arguments[0]):
                    self.comparison.put(p, arguments[0], state="failed", reason=reason, date=now())
            else:
                self.failure = f"judging failed: {reason}"

    def _chat(self, c: int) -> Any:
        s = self.comparison.settings
        spec = self.comparison.columns[c].spec
        return self.models.chat(spec, max_tokens=s.max_tokens, temperature=s.temperature, seed=s.seed)

    def _put(self, c: int, prompt: int, reply: Reply) -> None:
        state = "done" if reply.finish == "stop" else "cut"
        self.comparison.put(prompt, c, state=state, text=str(reply), reason="", date=now())

    def _ask(self, c: int) -> None:
        chat, waiting = self._chat(c), self.comparison.waiting(c)
        for start in range(0, len(waiting), ASKED_TOGETHER):
            if self.stopping.is_set():
                return
            self._take(c, chat, waiting[start : start + ASKED_TOGETHER])

    def _answer(self, c: int, some: list[int]) -> None:
        if some:
            with self.models.using(self.comparison.columns[c].spec):
                self._take(c, self._chat(c), some)

    def _take(self, c: int, chat: Any, some: list[int]) -> None:
        for p in some:
            self.comparison.put(p, c, log=None, state="running")
        asked = [self.comparison.prompts[p].messages for p in some]
        for p, reply in zip(some, chat.answers(asked, lambda i, r: self._put(c, some[i], r)), strict=True):
            if isinstance(reply, ChatFailedError):
                self.comparison.put(p, c, state="failed", reason=str(reply), date=now())

    def _read(self, c: int) -> None:
        """Answers of an imported file; a prompt that it lacks is a missing cell."""
        found = read_outputs(Path(self.comparison.columns[c].spec))
        for p in self.comparison.waiting(c):
            asked = self.comparison.prompts[p]
            row = found.get(asked.id, found.get(prompt_id(asked.messages)))
            if row is None:
                self.comparison.put(p, c, state="missing", reason="not in the file", date=now())
            else:
                self._put(c, p, Reply(*row))

    def _judge(self) -> None:
        """Rewards of new answers, and verdicts on the pairs of whole rows."""
        one, s = self.comparison, self.comparison.settings
        if s.reward:
            for (p, c), cell in one.cells.items():
                if cell.state in ("done", "cut") and cell.reward is None:
                    read = self.models.read(one.prompts[p].messages, cell.text, reward=s.reward)
                    rewards = [round(x, 3) for x in read.rewards]
                    one.put(p, c, log="scores", reward=rewards[-1], tokens=read.tokens, prefix_rewards=rewards)
        for spec in s.judges:
            self._judge_by(spec)

    def _judge_by(self, spec: str) -> None:
        from tutelage.configs import EvalConfig
        from tutelage.judges.llm import LLMJudge
        from tutelage.judges.verdict import Match
        from tutelage.stages.judged import open_judge

        one = self.comparison
        todo = [pair for pair in one.to_judge(spec) if (*pair, spec) not in self.tried]
        if not todo or self.stopping.is_set():
            return
        kept = Cache(one.folder / "judgments.jsonl")
        data = "world" if is_world(one.prompts) else "prompts"
        with self.models.loading:
            judge = open_judge(spec, EvalConfig(data=data, device=self.models.device), kept)
        with self.models.using(spec):
            matches = [Match(one.prompts[p], _reply(one, p, a), _reply(one, p, b)) for p, a, b in todo]
            for (p, a, b), verdict in zip(todo, judge.compare_all(matches), strict=True):
                self.tried.add((p, a, b, spec))
                one.judge(p, a, b, spec, points=verdict.points, flipped=verdict.flipped, problem=verdict.problem)
        if isinstance(judge, LLMJudge) and judge.failures:
            self.failure = f"{spec} left {len(judge.failures)} calls: {judge.failures[0]}"


def _reply(one: Comparison, prompt: int, c: int) -> Reply:
    cell = one.cells[prompt, c]
    return Reply(cell.text, "stop" if cell.state == "done" else "length")


def is_world(prompts: list[Prompt]) -> bool:
    """Whether the gold judge knows what each prompt asks for."""
    return all((one.source or "").startswith("world:") for one in prompts)


def cost(one: Comparison) -> list[str]:
    """What will still be asked of endpoints, at most and in words; empty where nothing leaves this machine."""
    lines = []
    for c, model in enumerate(one.columns):
        waiting = len(one.waiting(c))
        if model.kind == "endpoint" and waiting:
            most = waiting * one.settings.max_tokens
            lines.append(f"{model.spec}: {waiting} prompts, at most {most:,} tokens of answers")
    for judge in filter(is_endpoint, one.settings.judges):
        if pairs := one.may_judge(judge):
            lines.append(f"{judge} judges: {2 * pairs} calls (both orders of {pairs} pairs)")
    return lines
