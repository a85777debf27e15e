"""Simulated labelers answer the queue as people do, and a reward model trains on the export as on the file."""

import json
import random

from tutelage.configs import RewardConfig
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import comparisons
from tutelage.feedback import people
from tutelage.feedback.export import export_folder
from tutelage.feedback.projects import create_project, find_project, import_file
from tutelage.records import Comparison, Completion
from tutelage.web import create_app

from .site import Browser


def test_labels_through_the_pages_train_the_same_as_labels_from_a_file(store, tmp_path, nano):
    import torch

    from tutelage import world
    from tutelage.stages.reward import run
    from tutelage.world.labelers import panel

    prompts = world.prompts("train", 48, 0)
    demonstrations = {d.prompt_id: d.messages[-1]["content"] for d in world.demonstrations(48, 0)}
    wrong = ["I do not know.", "What a question! What a question! I am glad that you ask."]
    drawn = [
        Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=text)
        for p in prompts
        for k, text in enumerate([demonstrations.get(p.id, "It is so."), *wrong])
    ]
    write_jsonl(tmp_path / "samples.jsonl", [*prompts, *drawn])
    # the file: a panel ranks, as `tutelage label` does
    labelers, rng = panel("fair", 3), random.Random(0)
    rows, ranked = [], {}
    for number, prompt in enumerate(prompts):
        group = [c for c in drawn if c.prompt_id == prompt.id]
        texts = [c.text for c in group]
        labeler = labelers[number % 3]
        ranks = labeler.rank(prompt, texts, ["stop"] * len(texts), rng)
        ranked[prompt.messages[-1]["content"]] = dict(zip(texts, ranks, strict=True))
        rows.append(
            Comparison(
                id=f"{prompt.id}-{labeler.id}",
                prompt_id=prompt.id,
                completion_ids=[c.id for c in group],
                ranks=list(ranks),
                messages=prompt.messages,
                completions=texts,
                labeler=labeler.id,
                category=prompt.category,
            )
        )
    write_jsonl(tmp_path / "file.jsonl", rows)
    # the pages: the same panel takes items from the queue and says the same
    with store.write() as db:
        done = import_file(db, create_project(db, "Round 1"), tmp_path / "samples.jsonl")
        sessions = [people.sign_in(db, people.add_person(db, labeler.id, "labeler", None)) for labeler in labelers]
    assert done.tasks == len(prompts)
    app = create_app(store)
    browsers = []
    for token, session in sessions:
        browser = Browser(app)
        browser.http.cookies.set("tutelage_session", token)
        browser.csrf = session.csrf
        browsers.append(browser)
    turn, left = 0, len(prompts)
    while left:
        browser = browsers[turn % 3]
        item = browser.next()
        said = ranked[item["messages"][-1]["content"]]
        groups = [[x for x, text in item["answers"].items() if said[text] == rank] for rank in (1, 2, 3)]
        line = " > ".join(" = ".join(group) for group in groups if group)
        body = {"id": f"simulated-{turn:04}", "kind": "rank", "ranking": line}
        assert browser.send(f"/t/{item['task']}/answer", body).status_code == 200
        turn, left = turn + 1, left - 1
    with store.read() as db:
        export_folder(db, find_project(db, "round-1"), tmp_path / "export")
    exported, filed = (comparisons(str(tmp_path / name), "train") for name in ("export", "file.jsonl"))
    kept = ("prompt_id", "completion_ids", "ranks", "messages", "completions", "category")
    assert [[getattr(c, k) for k in kept] for c in exported] == [[getattr(c, k) for k in kept] for c in filed]
    losses = []
    for name in ("export", "file.jsonl"):
        out = tmp_path / f"rm-{name}"
        config = RewardConfig(model=str(nano), data=str(tmp_path / name), out=str(out), max_steps=2, batch_size=8)
        torch.manual_seed(0)  # the new head's weights, which are those of a fresh process elsewhere
        run(config)
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append([{k: v for k, v in row.items() if k != "seconds"} for row in metrics])
    assert losses[0] == losses[1] and len(losses[0]) == 2
