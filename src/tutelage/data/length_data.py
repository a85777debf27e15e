"""What AlpacaEval 2's length control knows of its prompts beforehand: how hard each is, and gamed baselines' verdicts."""

from pathlib import Path

from tutelage.data.foreign import prompt_id, prompt_messages
from tutelage.data.formats import Row, read_rows
from tutelage.errors import UserError

DIFFICULTY = ("instruction_difficulty", "difficulty")
GamedRow = tuple[float, float, float]  # preference, std_delta_len, difficulty


def read_length_data(path: Path) -> tuple[dict[str, float], list[GamedRow]]:
    """The difficulty of each prompt by its words' id, and the rows of gamed baselines.

    A row has `prompt` (or `instruction`) and `instruction_difficulty`; a gamed baseline's has `preference` (0 to 1, 1
    where the gamed answer won) and `std_delta_len` too: the columns of AlpacaEval's df_gamed.csv.
    """
    difficulty: dict[str, float] = {}
    gamed: list[GamedRow] = []
    for number, row in read_rows(path):
        where = f"{path}, row {number}"
        if "instruction" in row and "prompt" not in row:
            row = {**row, "prompt": row["instruction"]}
        field = next((name for name in DIFFICULTY if name in row), DIFFICULTY[0])
        hard = _number(row, field, where)
        difficulty[prompt_id(prompt_messages(row, where))] = hard
        if "preference" in row or "std_delta_len" in row:
            gamed.append((_share(row, where), _number(row, "std_delta_len", where), hard))
    return difficulty, gamed


def _number(row: Row, name: str, where: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise UserError(f"has no number {name} (it has {', '.join(row)})", where=where, mend=f"give {name}")
    return float(value)


def _share(row: Row, where: str) -> float:
    value = _number(row, "preference", where)
    if not 0 <= value <= 1:
        mend = "0 where the baseline won, 1 where the gamed answer did (AlpacaEval's 1 to 2, less 1)"
        raise UserError(f"has a preference of {value:g}", where=where, mend=mend)
    return value
