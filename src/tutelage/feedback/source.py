"""A project's answers as data to train on, by name: `feedback:PROJECT`, `feedback:PROJECT@STORE`, or its page's URL.

They are written to a folder named for their content, so that a resumed run has the very same ones.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tutelage.errors import UserError
from tutelage.feedback.export import export_folder
from tutelage.feedback.projects import find_project
from tutelage.feedback.quality import project_weights
from tutelage.feedback.store import Store

PREFIX = "feedback:"
FOLDER = Path("runs/feedback")
MOST = 1 << 30  # bytes of a download


def is_project(spec: str) -> bool:
    return spec.startswith(PREFIX) or bool(re.match(r"https?://[^/]+(/.*)?/projects/[\w-]+/?$", spec))


def local_data(spec: str) -> str:
    """The folder of a project's comparisons (weighted by their labelers' reliability) and demonstrations.

    Any other name of data is returned as it is.
    """
    if not is_project(spec):
        return spec
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        if spec.startswith(PREFIX):
            name, _, where = spec.removeprefix(PREFIX).partition("@")
            where = where or os.environ.get("TUTELAGE_STORE", "feedback.db")
            with Store.open(where, create=False).read() as db:
                project = find_project(db, name)
                export_folder(db, project, folder, project_weights(db, project))
        else:
            name = spec.rstrip("/").rpartition("/")[2]
            _download(spec.rstrip("/"), folder)
        digest = hashlib.sha256()
        for file in sorted(p for p in folder.rglob("*.jsonl")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
        final = FOLDER / f"{name}-{digest.hexdigest()[:12]}"
        if not final.exists():
            shutil.move(folder, final)
    return str(final)


def _download(url: str, folder: Path) -> None:
    token = os.environ.get("TUTELAGE_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/export?weights=1", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            packed = zipfile.ZipFile(io.BytesIO(reply.read(MOST)))
    except urllib.error.HTTPError as error:
        mend = "set TUTELAGE_TOKEN to a token with the scope export" if error.code in (401, 403) else "check the URL"
        raise UserError(f"refuses with status {error.code}", where=url, mend=mend) from error
    except (OSError, zipfile.BadZipFile) as error:
        mend = "is it a project's page, and do you need TUTELAGE_TOKEN?"
        raise UserError(f"gives no answers ({error})", where=url, mend=mend) from error
    for entry in packed.infolist():
        parts = Path(entry.filename).parts[1:]  # the project's folder
        if not parts or ".." in parts or entry.is_dir():
            continue
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed.read(entry))
