"""Data by name: `world`, or a file or folder. Every stage reads through here."""

import gzip
import hashlib
import itertools
import sys
from pathlib import Path
from typing import Any

from tutelage.data.formats import read_dataset
from tutelage.data.preferences import taken_apart
from tutelage.errors import UserError
from tutelage.records import Comparison, Dataset, Demonstration, Prompt, Thumb

# A file's prompts are split by a hash of their text; the shares in percent.
SPLITS = {"train": (0, 90), "tune": (90, 95), "report": (95, 100)}
KINDS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".txt", ".txt.gz")


def load_data(spec: str, split: str = "train") -> Dataset:
    """The records of a file or folder in a split; prompts and demonstrations are derived from comparisons where absent."""
    whole = Dataset()
    for path in _files(spec):
        data, warnings = _read(path)
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr)
        for name in ("prompts", "demonstrations", "comparisons", "texts", "thumbs"):
            getattr(whole, name).extend(getattr(data, name))
    _derive(whole)
    low, high = SPLITS[split]

    def inside(prompt_id: str) -> bool:
        return low <= int.from_bytes(hashlib.blake2b(prompt_id.encode(), digest_size=4).digest(), "little") % 100 < high

    if len({p.id for p in whole.prompts}) < 40:  # too few to set some aside
        return whole
    return Dataset(
        [p for p in whole.prompts if inside(p.id)],
        [d for d in whole.demonstrations if inside(d.prompt_id)],
        [c for c in whole.comparisons if inside(c.prompt_id)],
        whole.texts,
        [t for t in whole.thumbs if inside(t.prompt_id)],
    )


def demonstrations(spec: str, count: int | None, seed: int) -> list[Demonstration]:
    """Demonstrations to fine-tune on (the world writes 600 unless told otherwise)."""
    if spec == "world":
        from tutelage import world

        return world.demonstrations(count or 600, seed)
    found = load_data(spec).demonstrations
    if not found:
        raise UserError(
            "holds no demonstrations", where=spec, mend="give rows with messages, prompt+completion, or comparisons"
        )
    return found[:count]


def prompts(spec: str, split: str, count: int | None, seed: int) -> list[Prompt]:
    """Prompts of a split: the world's, or a file's (without repeats)."""
    if spec == "world":
        from tutelage import world

        return world.prompts(split, count or 1000, seed)
    found = load_data(spec, split).prompts
    if not found:
        raise UserError("holds no prompts", where=spec, mend="give rows with prompt, messages or comparisons")
    return found[:count]


def comparisons(spec: str, split: str) -> list[Comparison]:
    """Comparisons with their texts."""
    found = [c for c in load_data(spec, split).comparisons if c.messages and c.completions]
    if not found and split == "train":
        raise UserError(
            "holds no comparisons", where=spec, mend="give rows with prompt, chosen, rejected, or completions and ranks"
        )
    return found


def thumbs(spec: str, split: str) -> list[Thumb]:
    """Answers with a thumb up or down; where there are none, comparisons taken apart."""
    data = load_data(spec, split)
    found = data.thumbs or [t for c in data.comparisons if c.messages and c.completions for t in taken_apart(c)]
    if not found and split == "train":
        raise UserError(
            "holds no thumbs and no comparisons", where=spec, mend="give rows with prompt, completion and label"
        )
    return found


def load_texts(spec: str, tokens: int, tokenizer: Any, seed: int = 0) -> list[list[int]]:
    """Token ids of plain documents, about `tokens` of them all together."""
    if spec == "world":
        from tutelage.world.corpus import documents

        stream = documents(seed)
        found: list[list[int]] = []
        total = 0
        while total < tokens:
            chunk = tokenizer(list(itertools.islice(stream, 2000)), add_special_tokens=False)["input_ids"]
            found += chunk
            total += sum(map(len, chunk))
        return found
    texts = load_data(spec).texts
    if not texts:
        raise UserError("holds no plain text", where=spec, mend="give a .txt file or rows with text")
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def data_hash(spec: str) -> str:
    """sha256 over the files of a data option (the world's is its name)."""
    if spec == "world":
        return "world"
    digest = hashlib.sha256()
    for path in _files(spec):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(spec: str) -> list[Path]:
    path = Path(spec).expanduser()
    if not path.exists():
        raise UserError("there is no such file or folder", where=spec, mend="check the path, or use `world`")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.endswith(KINDS))
        if not files:
            raise UserError(
                "holds no data file", where=spec, mend=f"put files of these kinds there: {', '.join(KINDS)}"
            )
        return files
    return [path]


def _read(path: Path) -> tuple[Dataset, list[str]]:
    if not path.name.endswith((".txt", ".txt.gz")):
        return read_dataset(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        pieces = [p.strip() for p in raw.decode("utf-8-sig").split("\n\n") if p.strip()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=str(path), mend="save it as UTF-8 text") from error
    if not pieces:
        raise UserError("is empty", where=str(path), mend="give paragraphs of text")
    return Dataset(texts=pieces), []


def _derive(data: Dataset) -> None:
    """Prompts and demonstrations out of comparisons: the best answer shows what to write."""
    known = {p.id for p in data.prompts}
    for comparison in data.comparisons:
        if comparison.messages and comparison.prompt_id not in known:
            known.add(comparison.prompt_id)
            data.prompts.append(
                Prompt(id=comparison.prompt_id, messages=comparison.messages, category=comparison.category)
            )
    for demonstration in data.demonstrations:
        if demonstration.prompt_id not in known:
            known.add(demonstration.prompt_id)
            data.prompts.append(Prompt(id=demonstration.prompt_id, messages=demonstration.messages[:-1]))
    for thumb in data.thumbs:
        if thumb.prompt_id not in known:
            known.add(thumb.prompt_id)
            data.prompts.append(Prompt(id=thumb.prompt_id, messages=thumb.messages))
    if not data.demonstrations:
        for comparison in data.comparisons:
            if comparison.messages and comparison.completions:
                best = comparison.completions[comparison.ranks.index(1)]
                messages = [*comparison.messages, {"role": "assistant", "content": best}]
                data.demonstrations.append(
                    Demonstration(id=f"d-{comparison.id}", prompt_id=comparison.prompt_id, messages=messages)
                )
        for thumb in data.thumbs:
            if thumb.label:
                messages = [*thumb.messages, {"role": "assistant", "content": thumb.completion}]
                data.demonstrations.append(
                    Demonstration(id=f"d-{thumb.id}", prompt_id=thumb.prompt_id, messages=messages)
                )
