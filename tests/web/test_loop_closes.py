"""Simulated labelers answer over HTTP as people do; what trains on the export equals what trains on the files."""

import json
import random

from tutelage.configs import RewardConfig, SFTConfig
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import comparisons, demonstrations
from tutelage.feedback import people
from tutelage.feedback.export import export_folder
from tutelage.feedback.imports import import_file, import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.records import Comparison, Completion, Demonstration
from tutelage.web import create_app

from .site import Browser

PROMPTS, WRITTEN = 200, 60
WRONG = ["I do not know.", "What a question! What a question! I am glad that you ask."]


def said(labeler, prompt, texts):
    """A labeler's ranking of a prompt's answers: the same whenever it is asked."""
    return list(labeler.rank(prompt, texts, ["stop"] * len(texts), random.Random(f"{labeler.id} {prompt.id}")))


def signed_in(store, labelers):
    app = create_app(store)
    with store.write() as db:
        sessions = [
            people.sign_in(
                db, people.add_person(db, labeler.id, "labeler", None, person_id=labeler.id.replace("-", ""))
            )
            for labeler in labelers
        ]
    browsers = []
    for token, session in sessions:
        browser = Browser(app)
        browser.http.cookies.set("tutelage_session", token)
        browser.csrf = session.csrf
        browsers.append(browser)
    return browsers


def rank_all(browsers, labelers, prompts):
    """Each takes a turn until the queue has nothing for it; returns how many rankings were stored."""
    asked = {p.messages[-1]["content"]: p for p in prompts}
    count, waiting = 0, list(zip(browsers, labelers, strict=True))
    while waiting:
        browser, labeler = waiting.pop(0)
        item = browser.next()
        if item is None:
            continue
        letters = list(item["answers"])
        ranks = said(
            labeler, asked[item["messages"][-1]["content"]], [item["answers"][x] for x in sorted_by_text(item)]
        )
        by_letter = dict(zip(sorted_by_text(item), ranks, strict=True))
        groups = [[x for x in letters if by_letter[x] == rank] for rank in sorted(set(ranks))]
        line = " > ".join(" = ".join(group) for group in groups)
        body = {"id": f"simulated-{count:05}", "kind": "rank", "ranking": line}
        assert browser.send(f"/t/{item['task']}/answer", body).status_code == 200
        count += 1
        waiting.append((browser, labeler))
    return count


def sorted_by_text(item):
    return sorted(item["answers"], key=item["answers"].get)


def trained(run, config, out):
    import torch

    torch.manual_seed(0)  # the new head's weights, which are those of a fresh process elsewhere
    run(config)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_what_is_entered_over_http_trains_the_same_as_files(store, tmp_path, nano):
    from tutelage import world
    from tutelage.stages import reward, sft
    from tutelage.world.labelers import panel

    prompts = {p.messages[-1]["content"]: p for p in world.prompts("train", PROMPTS, 0)}
    prompts = list(prompts.values())
    drawn = [
        Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=text)
        for p in prompts
        for k, text in enumerate(["It is so.", *WRONG])
    ]
    write_jsonl(tmp_path / "samples.jsonl", [*prompts, *drawn])
    labelers = panel("fair", 3)
    with store.write() as db:
        import_file(db, create_project(db, "Round 1", overlap=3), tmp_path / "samples.jsonl")
        import_records(db, create_project(db, "Texts"), prompts[:WRITTEN], [], "demonstrate")
    browsers = signed_in(store, labelers)

    # 1. Rankings and demonstrations over HTTP.
    assert rank_all(browsers, labelers, prompts) == 3 * len(prompts) >= 600
    written = {}
    while item := browsers[0].next("texts"):
        question = item["messages"][-1]["content"]
        written[question] = f"Here is what I know: {len(question)} letters ask it."
        body = {"id": f"written-{item['task']:05}", "kind": "demonstrate", "answer": written[question]}
        assert browsers[0].send(f"/t/{item['task']}/answer", body).status_code == 200
    with store.read() as db:
        for name in ("round-1", "texts"):
            export_folder(db, find_project(db, name), tmp_path / name)

    # 2. The same labels as files, of the labelers and not of the store.
    rows = []
    for number, one in enumerate(comparisons_in_order(tmp_path / "round-1")):
        prompt = next(p for p in prompts if p.id == one["prompt_id"])
        labeler = next(x for x in labelers if x.id.replace("-", "") == one["labeler"])
        texts = ["It is so.", *WRONG]
        by_text = dict(zip(sorted(texts), said(labeler, prompt, sorted(texts)), strict=True))
        rows.append(
            Comparison(
                id=f"file-{number}",
                prompt_id=prompt.id,
                completion_ids=[f"{prompt.id}-{k}" for k in range(3)],
                ranks=[by_text[text] for text in texts],
                messages=prompt.messages,
                completions=texts,
                labeler=labeler.id,
                category=prompt.category,
            )
        )
    write_jsonl(tmp_path / "rankings.jsonl", rows)
    texts = [
        Demonstration(
            id=f"file-{p.id}",
            prompt_id=p.id,
            messages=[*p.messages, {"role": "assistant", "content": written[p.messages[-1]["content"]]}],
        )
        for p in prompts[:WRITTEN]
    ]
    write_jsonl(tmp_path / "texts.jsonl", texts)
    kept = ("prompt_id", "completion_ids", "ranks", "messages", "completions", "category")
    exported, filed = (comparisons(str(tmp_path / name), "train") for name in ("round-1", "rankings.jsonl"))
    assert [[getattr(c, k) for k in kept] for c in exported] == [[getattr(c, k) for k in kept] for c in filed]
    pair = [demonstrations(str(tmp_path / name), None, 0) for name in ("texts", "texts.jsonl")]
    assert [d.messages for d in pair[0]] == [d.messages for d in pair[1]] and len(pair[0]) >= 40

    # 3. The same numbers.
    small = {"model": str(nano), "max_steps": 2, "batch_size": 8}
    numbers = {}
    for name in ("round-1", "rankings.jsonl", "texts", "texts.jsonl"):
        stage, cls = (reward, RewardConfig) if "r" in name[:2] else (sft, SFTConfig)
        out = tmp_path / f"trained-{name}"
        numbers[name] = trained(stage.run, cls(data=str(tmp_path / name), out=str(out), **small), out)
    assert numbers["round-1"] == numbers["rankings.jsonl"] and len(numbers["round-1"]) == 2
    assert numbers["texts"] == numbers["texts.jsonl"] and len(numbers["texts"]) == 2


def comparisons_in_order(folder):
    return [json.loads(line) for line in (folder / "comparisons.jsonl").read_text().splitlines()]
