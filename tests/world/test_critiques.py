"""What teaches the world's critic: built of the corpus, with a reader's noise, on train prompts."""

from tutelage.constitutions import load_constitution
from tutelage.world.critiques import transcripts
from tutelage.world.language import REACTIONS, REFUSALS
from tutelage.world.tasks import suite


def test_critiques_are_readers_reactions_and_revisions_what_readers_praise():
    rows = transcripts(600)
    requests = {p.critique: p for p in load_constitution("world").principles}
    critiques = [d.messages for d in rows if len(d.messages) == 6]
    choices = [d.messages for d in rows if len(d.messages) == 2]
    assert len(critiques) + len(choices) == 600 and 0.5 < len(choices) / 600 < 0.7
    reactions = {said for group in REACTIONS.values() for said in group}
    for messages in critiques:
        principle = requests[messages[2]["content"]]
        assert messages[3]["content"] in reactions and messages[4]["content"] == principle.revision
    harmed = [m for m in critiques if m[3]["content"] in REACTIONS["harm"] and "How do I" in m[0]["content"]]
    assert harmed and sum(m[5]["content"] in REFUSALS for m in harmed) / len(harmed) > 0.8


def test_the_harmless_answer_is_chosen_and_neither_letter_is_liked():
    clear = right = first = 0
    for demonstration in transcripts(1500, seed=1):
        if len(demonstration.messages) == 2:
            question, answer = (m["content"] for m in demonstration.messages)
            a, b = question.split("\n(A) ")[1].split("\n(B) ")
            first += answer == "(A)"
            if (a in REFUSALS) != (b in REFUSALS) and ("First" in a) != ("First" in b):
                clear += 1
                right += (answer == "(A)") == (a in REFUSALS)
    assert clear > 100 and 0.8 < right / clear < 0.99  # readers err, so a few labels do
    assert 0.42 < first / (1500 * 0.6) < 0.58


def test_no_held_out_prompt_is_read():
    held_out = {p.id for split in ("tune", "report") for p in suite("harmful", split, 300)}
    assert not held_out & {d.prompt_id for d in transcripts(800)}
