"""SL-CAI: supervised fine-tuning on revisions (Bai et al. 2022, section 3).

A helpful model answers prompts that invite harm; a critic finds fault by a principle and writes the answer anew, several
times over; the *pretrained* model is fine-tuned on the revisions of all rounds, mixed with the helpful model's answers to
ordinary prompts. Every critique and revision is a row of revisions.jsonl; what an endpoint said is kept in critic.jsonl as it
comes, and not asked again after a kill.

Departures from the paper:
1. A critique or revision that is no use (the critic refused, looped, was cut off) ends that prompt's rounds and is counted.
2. The gradient's norm is clipped (max_grad_norm).
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.configs import CAIConfig
from tutelage.constitutions import load_constitution
from tutelage.data.batches import batch_order
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import data_hash, prompts
from tutelage.data.templates import preflight, render
from tutelage.engine.distributed import from_main
from tutelage.engine.optimizer import MasterAdam
from tutelage.engine.sampling import SamplingParams
from tutelage.errors import UserError
from tutelage.evaluation.refusal import refusal_class
from tutelage.judges.cache import Cache, key_of
from tutelage.judges.chats import Chat, Endpoint, open_chat
from tutelage.judges.critic import Critic
from tutelage.judges.remembered import RememberedChat
from tutelage.models import Policy, load_policy, resolve, save_model
from tutelage.processes import is_main
from tutelage.records import Demonstration, Prompt
from tutelage.runs import Progress, write_text
from tutelage.runs.files import append_rows, whole_rows
from tutelage.runs.lineage import folder_hash
from tutelage.stages.language_modeling import backward_mean_nll
from tutelage.stages.loading import trained_policy
from tutelage.stages.sample import draw, rendered_prompts, text_of
from tutelage.stages.session import Session

CHUNK = 64  # prompts whose rows are written together
Row = dict[str, Any]


@dataclass
class Answering:
    """The helpful model, and how it is asked. key: of all that rows depend on beside their prompt; others are not ours."""

    policy: Policy
    config: CAIConfig
    key: str = ""

    def answers(self, asked: list[Prompt], count: int) -> list[list[tuple[str, bool]]]:
        """`count` answers to each prompt, and whether each ended by itself."""
        config = self.config
        params = SamplingParams(config.max_new_tokens, 0, config.temperature)
        drawn = draw(self.policy, asked, count, params, config.seed, config.max_length)
        return [[(text_of(self.policy, one), one.finish == "stop") for one in row] for row in drawn]


def run(config: CAIConfig) -> dict[str, Any]:
    """Criticize, revise, fine-tune; returns the run's summary with its checkpoint."""
    # 1. The pretrained model, the helpful one that answers, the critic and its constitution.
    if config.policy is None:
        mend = "give the checkpoint of a helpful model (tutelage sft)"
        raise UserError("cai needs a model that answers", where="option --policy (policy)", mend=mend)
    constitution = load_constitution(config.constitution)
    source, helpful = resolve(config.model), resolve(config.policy)
    options: dict[str, Any] = {"max_tokens": config.max_new_tokens, "temperature": config.temperature}
    chat = open_chat(
        config.critic or config.policy, **options, dtype=config.dtype, device=config.device, seed=config.seed
    )
    how = [config.revisions, config.helpful_samples, config.max_new_tokens, config.temperature, config.seed]
    key = key_of(chat.name, folder_hash(helpful), asdict(constitution), config.max_length, how)
    answering = Answering(load_policy(helpful, config.dtype, device=config.device), config, key)
    asked = prompts(config.data, "train", config.prompts, config.seed)
    rendered_prompts(answering.policy, asked, config.max_length)  # said before anything is written
    ordinary: list[Prompt] = []
    if config.helpful_data is not None:
        ordinary = prompts(config.helpful_data, "train", config.helpful_prompts, config.seed)
    size = len(asked) * config.revisions + len(ordinary) * config.helpful_samples
    total = config.max_steps or max(1, round(config.epochs * size / config.batch_size))
    with Session(config, "cai", total) as session:
        # 2. Answer, critique, revision, critique, revision, …; the helpful model's answers to ordinary prompts.
        folder = session.run.path
        critic = Critic(_kept(chat, folder / "critic.jsonl"), constitution)
        untrained = session.run.start_step == 0
        rows = from_main(lambda: _revisions(folder / "revisions.jsonl", critic, answering, asked, untrained))
        kept = [row for row in rows if row["problem"] is None]
        if not kept:
            problems = ", ".join(f"{n} {problem}" for problem, n in _problems(rows).items())
            where, mend = config.critic or "the policy as its own critic", "read revisions.jsonl; use an abler critic"
            raise UserError(f"no revision could be used ({problems})", where=where, mend=mend)
        helpful_rows = from_main(lambda: _helpful(folder / "helpful.jsonl", answering, ordinary, untrained))
        demonstrations = _demonstrations(kept, helpful_rows)
        if is_main():
            write_jsonl(folder / "demonstrations.jsonl", demonstrations)
        counts = _counts(rows, kept, helpful_rows)

        # 3. Fine-tuning of the pretrained model on both, one pass at a constant rate.
        policy = trained_policy(config, session.run.resume_model() or source)
        rendered = [render(policy.tokenizer, d.messages) for d in demonstrations]
        report = preflight(policy.tokenizer, rendered, config.max_length, [d.messages[:-1] for d in demonstrations])
        print("\n".join(f"cai: {line}" for line in report.lines()), file=sys.stderr)
        about = {"role": "policy", "stage": "cai", "parent": str(source), "template": report.template}
        about |= {"data": data_hash(config.data), "critic": chat.name, "constitution": constitution.name}
        policy.model.train()
        session.prepare(policy)
        optimizer = MasterAdam(policy.own_parameters(), state=config.optimizer_state)
        if session.state:
            optimizer.load(session.state["optimizer"])
        for step in session.steps():
            chosen = batch_order(len(report.kept), config.batch_size, config.seed, session.position(step))
            batch = [report.kept[i] for i in chosen]
            row = backward_mean_nll(policy, batch, config.micro_tokens, optimizer)
            rate = config.learning_rate
            row |= {"grad_norm": optimizer.step(rate, config.max_grad_norm), "learning_rate": rate}
            session.tokens += sum(len(r.input_ids) for r in batch)
            write = lambda path, verify: save_model(path, policy, about, verify=verify)  # noqa: E731
            session.done(step, row, write, {"optimizer": optimizer.state()})
        inputs: dict[str, Path | str | None] = {"model": source, "policy": helpful, "critic": config.critic}
        return session.finish({**inputs, "constitution": config.constitution, "data": config.data}, **counts)


def _kept(chat: Chat, path: Path) -> Chat:
    """An endpoint's replies cost money or hours: each is kept as it comes. A checkpoint here is asked again as cheaply."""
    if not isinstance(chat, Endpoint):
        return chat
    return RememberedChat(chat, Cache(path), [chat.temperature, chat.max_tokens])


def _revisions(path: Path, critic: Critic, answering: Answering, asked: list[Prompt], untrained: bool) -> list[Row]:
    """Every round of every prompt; what an earlier sitting wrote is not asked again, except what failed on the way
    (while nothing is trained on it: a run that goes on keeps its demonstrations)."""
    written = whole_rows(path)
    found = [row for row in written if not untrained or row.get("key", answering.key) == answering.key]
    ended = [row for row in found if row["problem"] or row["round"] == answering.config.revisions]
    known = {row["prompt_id"] for row in ended if not (untrained and row["problem"] == "failed")}
    rows = [row for row in found if row["prompt_id"] in known]
    if len(found) < len(written):
        print(f"cai: {len(written) - len(found)} rows of another critic or policy are replaced", file=sys.stderr)
    if len(rows) < len(written):  # a kill came between the rounds of a prompt, or a request failed: it begins anew
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    missing = [prompt for prompt in asked if prompt.id not in known]
    with Progress(len(asked), "critiques", done=len(asked) - len(missing), unit="prompt") as bar:
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            new = _rounds(critic, some, [row[0][0] for row in answering.answers(some, 1)], answering)
            append_rows(path, new)
            rows += new
            bar.update(len(asked) - len(missing) + start + len(some))
    for problem, count in _problems(rows).items():
        print(f"cai: {count} critiques or revisions left out: {problem}", file=sys.stderr)
    return rows


def _rounds(critic: Critic, asked: list[Prompt], answers: list[str], answering: Answering) -> list[Row]:
    """All rounds for some prompts; the rows of a prompt follow each other."""
    config = answering.config
    rows: dict[str, list[Row]] = {prompt.id: [] for prompt in asked}
    latest = {prompt.id: answer for prompt, answer in zip(asked, answers, strict=True)}
    for number in range(1, config.revisions + 1):
        going = [p for p in asked if not (rows[p.id] and rows[p.id][-1]["problem"])]
        if not going:
            break
        drawn = [(p, latest[p.id], critic.draw(config.seed, p.id, number)) for p in going]
        critiques = critic.criticize(drawn)
        sound = [i for i, said in enumerate(critiques) if said.problem is None]
        revisions = iter(critic.revise([drawn[i] for i in sound], [critiques[i].text for i in sound]))
        for (prompt, response, principle), critique in zip(drawn, critiques, strict=True):
            revision = next(revisions) if critique.problem is None else None
            problem = critique.problem or (revision.problem if revision else None)
            row: Row = {"schema": "tutelage.revision/1", "id": f"{prompt.id}-{number}", "prompt_id": prompt.id}
            row |= {"messages": prompt.messages, "round": number, "principle": principle.id, "response": response}
            row |= {"critique": critique.text, "revision": revision.text if revision else None, "problem": problem}
            row["key"] = answering.key
            rows[prompt.id].append(row)
            if revision is not None and problem is None:
                latest[prompt.id] = revision.text
    return [row for prompt in asked for row in rows[prompt.id]]


def _helpful(path: Path, answering: Answering, asked: list[Prompt], untrained: bool) -> list[Row]:
    """The helpful model's answers to ordinary prompts, those that ended by themselves."""
    written = whole_rows(path)
    rows = [row for row in written if not untrained or row.get("key", answering.key) == answering.key]
    if len(rows) < len(written):
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    known = {row["prompt_id"] for row in rows}
    missing = [prompt for prompt in asked if prompt.id not in known]
    for start in range(0, len(missing), CHUNK):
        some = missing[start : start + CHUNK]
        drawn = answering.answers(some, answering.config.helpful_samples)
        new = [
            {
                "prompt_id": p.id,
                "messages": p.messages,
                "texts": [text for text, ended in row if ended and text.strip()],
                "key": answering.key,
            }
            for p, row in zip(some, drawn, strict=True)
        ]
        append_rows(path, new)
        rows += new
    return rows


def _demonstrations(kept: list[Row], helpful: list[Row]) -> list[Demonstration]:
    pairs = [(f"cai-{row['id']}", row, row["revision"], "critic") for row in kept]
    pairs += [
        (f"helpful-{row['prompt_id']}-{i}", row, text, "policy")
        for row in helpful
        for i, text in enumerate(row["texts"])
    ]
    return [
        Demonstration(
            id=name,
            prompt_id=row["prompt_id"],
            messages=[*row["messages"], {"role": "assistant", "content": text}],
            labeler=who,
        )
        for name, row, text, who in pairs
    ]


def _problems(rows: list[Row]) -> Counter[str]:
    return Counter(row["problem"] for row in rows if row["problem"])


def _counts(rows: list[Row], kept: list[Row], helpful: list[Row]) -> dict[str, Any]:
    """What happened: problems, and for each principle and each round how often it changed what."""
    return {
        "prompts": len({row["prompt_id"] for row in rows}),
        "revisions": len(kept),
        "helpful_answers": sum(len(row["texts"]) for row in helpful),
        "left_out": dict(_problems(rows)),
        "principles": _effect(rows, "principle"),
        "rounds": _effect(rows, "round"),
    }


def _effect(rows: list[Row], key: str) -> list[Row]:
    """By principle or round: how many revisions, how many were left out, how many changed the answer, and how many answers
    refuse before and after (the last two of the revisions alone)."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    table = []
    for name, drawn in sorted(groups.items()):
        group = [row for row in drawn if row["problem"] is None]
        n = len(group)
        entry: Row = {key: name, "count": n, "left_out": len(drawn) - n}
        table.append(entry)
        if not group:
            continue
        entry["changed"] = sum(r["revision"] != r["response"] for r in group) / n
        for when, field in (("before", "response"), ("after", "revision")):
            entry[f"refusing_{when}"] = sum(refusal_class(r[field]) != "compliance" for r in group) / n
            entry[f"words_{when}"] = sum(len(r[field].split()) for r in group) / n
    return table
