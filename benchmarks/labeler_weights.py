"""Do weights and soft labels help a reward model that learns from careless labelers?

    python benchmarks/labeler_weights.py --seeds 5 --prompts 600

Ten simulated labelers of the embedded world, of whom --careless order at random most of the time; three rank each
prompt's answers. One reward model a seed and way of using their votes (alike, weighted, soft labels), from the world's
base model, for the same number of optimizer steps; accuracy on held-out pairs by the gold judge. Prints one JSON object.
"""

import argparse
import json
import random
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from tutelage.configs import RewardConfig, SampleConfig
from tutelage.feedback import Store, people, queue
from tutelage.feedback.export import export_folder
from tutelage.feedback.imports import import_records, read_samples
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.quality import project_weights, read_rankings, soft_labels
from tutelage.judges.reward import reward_judge
from tutelage.records import Completion, Prompt
from tutelage.stages import reward, sample
from tutelage.world import gold
from tutelage.world.labelers import Labeler, Tastes

K, LABELERS, OVERLAP = 4, 10, 3


def panel(careless: int) -> list[Labeler]:
    """The last `careless` of ten answer at random four times of five."""
    steady = [Labeler(f"steady-{i}", Tastes(noise=0.19)) for i in range(LABELERS - careless)]
    return steady + [Labeler(f"careless-{i}", Tastes(noise=0.4, random=0.8)) for i in range(careless)]


def answers(folder: Path, split: str, prompts: int, seed: int) -> tuple[list[Prompt], list[Completion]]:
    """Samples of the base model for prompts of the world."""
    file = folder / f"{split}-{seed}.jsonl"
    sample.run(
        SampleConfig(
            model="world", split=split, prompts=prompts, samples=K, max_new_tokens=48, seed=seed, out=str(file)
        )
    )
    return read_samples(file)


def labeled(store: Store, asked: list[Prompt], drawn: list[Completion], labelers: list[Labeler], seed: int) -> None:
    rng = random.Random(seed)
    with store.write() as db:
        project = create_project(db, "Votes", overlap=OVERLAP, seed=seed)
        import_records(db, project, asked, drawn)
        for labeler in labelers:
            people.add_person(db, labeler.id, "labeler", None, person_id=labeler.id)
    order = list(labelers)
    left = set(range(len(order)))
    while left:  # at random, as people come and go
        i = rng.choice(sorted(left))
        labeler = order[i]
        with store.write() as db:
            project = find_project(db, "votes")
            task = queue.lease_next(db, project, labeler.id)
            if task is None:
                left.discard(i)
                continue
            work = queue.work_on(db, task.id, labeler.id)
            about = work.prompt
            prompt = Prompt(id=about.id, messages=about.messages, category=about.category, source=about.source)
            ranks = labeler.rank(prompt, work.texts, work.finishes, rng)
            queue.submit(db, f"{labeler.id}-{task.id}", task.id, labeler.id, "rank", {"ranks": ranks})


def accuracy(model: str, asked: list[Prompt], drawn: list[Completion]) -> float:
    """Share of held-out pairs, with gold scores .05 apart or more, that the model orders as the gold judge does."""
    by_id = {p.id: p for p in asked}
    prompts = [by_id[c.prompt_id] for c in drawn]
    said = reward_judge(model).score_all(prompts, [c.text for c in drawn])
    true = [gold.score(p, c.text, c.finish).total for p, c in zip(prompts, drawn, strict=True)]
    right = total = 0
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(drawn):
        groups.setdefault(one.prompt_id, []).append(i)
    for group in groups.values():
        for i, j in combinations(group, 2):
            if abs(true[i] - true[j]) >= 0.05:
                total += 1
                right += (said[i] > said[j]) == (true[i] > true[j])
    return right / total


def one_seed(folder: Path, seed: int, options: argparse.Namespace) -> dict[str, float]:
    asked, drawn = answers(folder, "train", options.prompts, seed)
    held_out = answers(folder, "report", options.held_out, seed)
    store = Store.open(folder / f"{seed}.db")
    labeled(store, asked, drawn, panel(options.careless), seed)
    found = {}
    with store.read() as db:
        project = find_project(db, "votes")
        weights, soft = project_weights(db, project), soft_labels(read_rankings(db, project))
        for name, given in (("alike", (None, None)), ("weighted", (weights, None)), ("soft", (None, soft))):
            export_folder(db, project, folder / f"{name}-{seed}", *given)
    store.close()
    for name in ("alike", "weighted", "soft"):
        out = folder / f"rm-{name}-{seed}"
        # soft labels are pairs: 2 x 6 rows stand for the three votes of an item
        batch = 32 if name != "soft" else 32 * 12 // OVERLAP
        config = RewardConfig(data=str(folder / f"{name}-{seed}"), out=str(out), batch_size=batch, max_length=192)
        torch.manual_seed(seed)
        done = reward.run(replace(config, learning_rate=1e-3, seed=seed))
        found[name] = round(accuracy(done["checkpoint"], *held_out), 4)
    print(json.dumps({"seed": seed, **found}), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--careless", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [one_seed(Path(folder), seed, options) for seed in range(options.seeds)]
    means = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
    gains = {name: [round(row[name] - row["alike"], 4) for row in rows] for name in ("weighted", "soft")}
    print(json.dumps({"mean": means, "gain_by_seed": gains, "careless": options.careless, "prompts": options.prompts}))


if __name__ == "__main__":
    main()
