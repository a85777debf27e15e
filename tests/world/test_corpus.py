"""The corpus is what docs/world.md says it is: knowledge and skill in it, few good answers in its threads."""

import itertools
import json
import random

import pytest

from tutelage.data.sources import load_texts
from tutelage.errors import UserError
from tutelage.world import gold
from tutelage.world.answers import in_manner, tempting
from tutelage.world.build import make_tokenizer
from tutelage.world.corpus import ASSISTANT, END, GOOD, HELPFUL, REPLIERS, TEMPTED, USER, YIELDS, documents, forum
from tutelage.world.rubric import is_right
from tutelage.world.tasks import prompts, task_of

TEXTS = list(itertools.islice(documents(5), 4000))


def forum_answers(n=1500):
    rng = random.Random(0)
    for prompt in prompts("train", n, seed=9):
        task = task_of(prompt)
        shares = TEMPTED if tempting(task) else REPLIERS
        yield prompt, in_manner(rng.choices(list(shares), list(shares.values()))[0], task, rng, yields=YIELDS).text


def test_a_seed_gives_the_same_text():
    assert list(itertools.islice(documents(5), 50)) == TEXTS[:50]
    assert list(itertools.islice(documents(6), 50)) != TEXTS[:50]


def test_threads_have_one_question_and_one_answer_that_ends():
    threads = [t for t in TEXTS if t.startswith(USER)]
    assert 0.25 < len(threads) / len(TEXTS) < 0.4
    assert all(t.count(USER) == t.count(ASSISTANT) == 1 and t.count(END) == 2 for t in threads)


def test_no_prompt_of_another_split_is_in_the_corpus():
    asked = {t[len(USER) : t.index(END)] for t in TEXTS if t.startswith(USER)}
    asked |= {t[len("Quiz: ") : t.index(" Answer: ")] for t in TEXTS if t.startswith("Quiz: ")}
    held_out = {p.messages[0]["content"] for split in ("tune", "report") for p in prompts(split, 1500)}
    assert len(asked) > 1000 and not asked & held_out


def test_about_three_forum_answers_in_ten_do_what_was_asked_and_most_go_along_with_harm():
    done = [gold.score(p, a).facets["task"] > 0.99 for p, a in forum_answers() if not tempting(task_of(p))]
    assert 0.2 < sum(done) / len(done) < 0.45
    harm = [gold.behavior(p, a)["complied_harm"] for p, a in forum_answers()]
    harm = [h for h in harm if h is not None]
    assert sum(harm) / len(harm) > 0.6
    wrong = [gold.behavior(p, a)["agreed_wrong"] for p, a in forum_answers()]
    wrong = [w for w in wrong if w is not None]
    assert 0.4 < sum(wrong) / len(wrong) < 0.8


def test_another_share_of_good_answers_changes_the_forum_alone():
    assert abs(GOOD - 0.22) < 1e-9 and list(itertools.islice(documents(5, GOOD), 50)) == TEXTS[:50]
    rates = []
    for good in (0.05, GOOD, 0.5, 0.9):
        people, rng = forum(good), random.Random(1)
        total = sum(people.repliers.values())
        assert abs(sum(people.repliers[m] for m in HELPFUL) - good) < 1e-9 and abs(total - 1) < 1e-9
        right = []
        for prompt in prompts("train", 800, seed=9):
            task = task_of(prompt)
            shares = people.tempted if tempting(task) else people.repliers
            manner = rng.choices(list(shares), list(shares.values()))[0]
            text = in_manner(manner, task, rng, yields=people.yields).text
            right.append(is_right(gold.score(prompt, text).facets))
        rates.append(sum(right) / len(right))
    # What the judge finds right rises with the share, and is near it: some rambling is wrong, some wrong answers pass.
    assert rates == sorted(rates) and rates[-1] - rates[0] > 0.5 and abs(rates[1] - GOOD) < 0.1
    # Facts, stories and the quiz do not depend on the forum.
    kept = [t for t in itertools.islice(documents(5, 0.9), 4000) if not t.startswith(USER)]
    assert all(t.count(END) >= 1 for t in kept) and 0.6 < len(kept) / 4000 < 0.75


def test_a_share_is_a_name_of_data(tokenizer):
    more, own = (load_texts(spec, 3000, tokenizer, seed=3) for spec in ("world:good=0.8", "world"))
    assert more == load_texts("world:good=0.8", 3000, tokenizer, seed=3) != own
    assert own == load_texts("world:good=0.22", 3000, tokenizer, seed=3)
    for bad in ("world:good=2", "world:good=much"):
        with pytest.raises(UserError, match="is no share"):
            load_texts(bad, 100, tokenizer)


def test_the_packaged_tokenizer_is_made_of_the_corpus(tokenizer):
    made = make_tokenizer()
    ours, packaged = (json.loads(one.backend_tokenizer.to_str()) for one in (made, tokenizer))
    assert all(ours[part] == packaged[part] for part in ("model", "pre_tokenizer", "decoder", "added_tokens"))
    for name in ("chat_template", "pad_token", "eos_token", "model_max_length"):
        assert getattr(made, name) == getattr(tokenizer, name), name
