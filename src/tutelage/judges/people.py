"""People as the judge: what they said of the same answers in comparisons that were made before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from tutelage.data.foreign import prompt_id
from tutelage.data.sources import read_whole
from tutelage.errors import UserError
from tutelage.judges.verdict import Match, Verdict
from tutelage.records import Comparison, Prompt, Rating


@dataclass
class PeopleJudge:
    """Each vote is a person's ranking of answers to a prompt, known by the prompt's and the answers' words."""

    name: str
    rankings: dict[str, list[dict[str, int | None]]] = field(default_factory=dict)
    rated: dict[tuple[str, str], list[Rating]] = field(default_factory=dict)

    def votes(self, match: Match) -> list[float]:
        """What each person who ranked both answers said: 1 where A is better, 0.5 for a tie, 0 where B is."""
        a, b = match.a.strip(), match.b.strip()
        found = []
        for ranks in self.rankings.get(prompt_id(match.prompt.messages), []):
            ours, theirs = ranks.get(a), ranks.get(b)
            if ours is not None and theirs is not None:
                found.append(1.0 if ours < theirs else 0.5 if ours == theirs else 0.0)
        return found

    def ratings(self, prompt: Prompt, answer: str) -> list[Rating]:
        """What each person said of this answer by itself, where they gave it a quality or marks."""
        return self.rated.get((prompt_id(prompt.messages), answer.strip()), [])

    def compare_all(self, matches: Sequence[Match], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """The side of the mean vote; no verdict where nobody ranked both."""
        found = [majority(self.votes(match)) for match in matches]
        if progress is not None:
            progress(len(matches))
        return [Verdict(points, problem="unvoted" if points is None else None) for points in found]

    def score_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]:
        """None: a person's quality is a rating (`ratings`), and not everyone gives one."""
        return [None] * len(answers)


def majority(votes: Sequence[float]) -> float | None:
    """1, 0.5 or 0: the side of the mean; None without votes."""
    if not votes:
        return None
    mean = sum(votes) / len(votes)
    return 1.0 if mean > 0.5 else 0.0 if mean < 0.5 else 0.5


def people_judge(path: str, name: str) -> PeopleJudge:
    """The comparisons of a file or folder, held out or not: nothing is trained here."""
    comparisons = read_whole(path)[0].comparisons
    if not comparisons:
        raise UserError(
            "holds no comparisons", where=path, mend="give votes of the compare page, or a project's rankings"
        )
    judge = PeopleJudge(name)
    for one in comparisons:
        asked = prompt_id(one.messages or [])
        judge.rankings.setdefault(asked, []).append(_by_text(one))
        for text, rating in _ratings(one).items():
            judge.rated.setdefault((asked, text), []).append(rating)
    return judge


def _ratings(one: Comparison) -> dict[str, Rating]:
    """Quality and marks of each answer that has some; a text that stands twice, as it was rated first."""
    found: dict[str, Rating] = {}
    for place, text in enumerate(one.completions or []):
        likert = one.ratings[place] if one.ratings else None
        # Who gave a quality and marked nothing saw the marks: none of them holds.
        flags = frozenset(one.flags[place] or []) if one.flags else None if likert is None else frozenset[str]()
        if likert is not None or flags is not None:
            found.setdefault(text.strip(), Rating(likert, flags))
    return found


def _by_text(one: Comparison) -> dict[str, int | None]:
    texts = [text.strip() for text in one.completions or []]
    ranks = dict(zip(texts, one.filled_ranks(), strict=True))
    # The same words twice at different ranks say nothing of these words.
    twice = {a for (a, x), (b, y) in combinations(zip(texts, one.filled_ranks(), strict=True), 2) if a == b and x != y}
    return {text: None if text in twice else rank for text, rank in ranks.items()}
