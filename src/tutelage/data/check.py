"""What a data file holds: counts, and what will mislead a model trained on it."""

from itertools import combinations
from typing import Any

from tutelage.data.sources import load_data


def check(spec: str) -> dict[str, Any]:
    """Counts of records; share of pairs in which the longer answer wins; repeats."""
    data = load_data(spec)
    longer = pairs = 0.0
    for comparison in data.comparisons:
        texts = comparison.completions or []
        for i, j in combinations(range(len(texts)), 2):
            a, b = comparison.ranks[i], comparison.ranks[j]
            if a and b and a != b and len(texts[i]) != len(texts[j]):
                pairs += 1
                longer += (a < b) == (len(texts[i]) > len(texts[j]))
    prompts = [p.messages[-1]["content"] for p in data.prompts]
    return {
        "prompts": len(data.prompts),
        "demonstrations": len(data.demonstrations),
        "comparisons": len(data.comparisons),
        "thumbs": len(data.thumbs),
        "texts": len(data.texts),
        "repeated_prompts": len(prompts) - len(set(prompts)),
        "longer_answer_wins": round(longer / pairs, 3) if pairs else None,
        "pairs": int(pairs),
    }
