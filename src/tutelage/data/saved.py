"""A folder as `datasets` saves one (`Dataset.save_to_disk`), written without that library: `load_from_disk` reads it."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

from tutelage.data.formats import Row, arrow_table, write_bytes
from tutelage.errors import UserError

DATA = "data-00000-of-00001.arrow"


def is_folder(out: Path) -> bool:
    """Whether the name is a folder's: it ends in nothing that would say a file's kind."""
    return not out.suffix


def encode_folder(rows: list[Row]) -> dict[str, bytes]:
    """The files by name: an Arrow stream, and what `datasets` 2 and later look for beside it."""
    import pyarrow

    table, buffer = arrow_table(rows), io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    content = buffer.getvalue()
    state: dict[str, Any] = {
        "_data_files": [{"filename": DATA}],
        "_fingerprint": hashlib.sha256(content).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    about = {"citation": "", "description": "", "homepage": "", "license": ""}  # features: those of the table
    return {
        DATA: content,
        "state.json": json.dumps(state, indent=2).encode(),
        "dataset_info.json": json.dumps(about, indent=2).encode(),
    }


def write_folder(out: Path, rows: list[Row]) -> bool:
    """Whether it was there already with these rows; with others it is refused. Whole or not at all."""
    files = encode_folder(rows)
    if out.exists():
        if not (out / DATA).is_file() or (out / DATA).read_bytes() != files[DATA]:
            raise UserError("is there already, with other content", where=str(out), mend="choose another --out")
        return True
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for name, content in files.items():
            write_bytes(scratch / name, content)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return False
