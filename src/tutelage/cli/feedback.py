"""`tutelage feedback ACTION`: the store of people's answers, from the command line."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from tutelage.cli import feedback_jobs
from tutelage.cli.feedback_store import StoreOptions, note, open_store
from tutelage.cli.options import parse_words, show
from tutelage.configs.rounds import RoundSettings
from tutelage.errors import UserError, did_you_mean

Kind = Literal["rank", "demonstrate", "steps", "prompts"]
Role = Literal["admin", "lead", "labeler"]


@dataclass(kw_only=True)
class NewOptions(StoreOptions):
    """Make a project."""

    name: Positional[str]
    """Its name, for example "Round 1"."""
    overlap: int = 1
    """Answers an item, each by another person."""
    gold_every: int = 0
    """Mix in a gold item with so many others; 0 is none."""
    instructions: str = ""
    """A text file that labelers see beside each item."""


@dataclass(kw_only=True)
class ImportOptions(StoreOptions):
    """Add prompts and completions to a project: what `tutelage sample` wrote, or rows of prompt and completions. All of
    the file or nothing; every bad row is told."""

    file: Positional[str]
    project: str
    tasks: Kind = "rank"
    """What is asked for each prompt: rank its completions, demonstrate an answer, judge the steps of each completion;
    or nothing (prompts): rounds draw answers to them."""
    gold: bool = False
    """The file holds comparisons with a known order: gold items."""
    answers: bool = False
    """The file holds comparisons that labelers made elsewhere: answers of the labelers that they name."""
    labeler: str = ""
    """With --answers: whose they are where a row names nobody."""
    screening: Literal["", "test", "example"] = ""
    """The file holds items of the screening test (ranks, `sensitive`, or a prompt alone), or its worked examples."""


@dataclass(kw_only=True)
class PrioritizeOptions(StoreOptions):
    """Order a project's queue, the highest priority first: by a file of {"prompt_id", "priority"}, or by how far
    reward models differ on the answers' order."""

    project: str
    file: str = ""
    reward_models: tuple[str, ...] = ()
    """Two or more checkpoints, for example of `tutelage reward` with other seeds."""


@dataclass(kw_only=True)
class RoundOptions(RoundSettings, StoreOptions):
    """A round: samples of models → labels → training; then the next one with the model that came of it.

    A round that was not finished goes on where it was; the options below begin a new one.
    """

    project: str
    rounds: int = 1
    """How many, one after another."""
    wait: bool = False
    """Stay until people have labeled everything; else leave then, and go on when called again."""
    out: str = "runs/rounds"
    """Folder for samples, runs and logs."""


@dataclass(kw_only=True)
class ExportOptions(StoreOptions):
    """Write a folder that `tutelage reward --data` and `tutelage sft --data` read."""

    project: str
    out: str = "runs/feedback"
    weights: bool = False
    """Weight each labeler by reliability (Dawid and Skene's model on shared items)."""
    soft: bool = False
    """In place of votes: each pair in both orders, weighted by its chance given all votes and their labelers."""


@dataclass(kw_only=True)
class BackupOptions(StoreOptions):
    """Copy a store while it is in use: a SQLite file, or a PostgreSQL database by pg_dump."""

    out: Positional[str]


@dataclass(kw_only=True)
class RestoreOptions(StoreOptions):
    """Make the store of a backup, checked before and after; where that fails, the store stays as it was."""

    backup: Positional[str]
    """What `tutelage feedback backup` wrote."""
    force: bool = False
    """Replace a store that holds answers."""


@dataclass(kw_only=True)
class ServeOptions(StoreOptions):
    """Serve the pages without any model (`tutelage serve` has both): less memory, no torch."""

    host: str = "127.0.0.1"
    """On this machine only, nobody needs an account; any other address demands accounts."""
    port: int = 8000
    accounts: bool = False
    """Demand accounts on this machine too."""
    trusted_proxy: tuple[str, ...] = ()
    """The address or network of a TLS proxy in front, as 127.0.0.1 or 172.30.0.0/24: what it says of the client's address
    and of https is believed, and accounts are demanded."""
    runs: str = "runs"
    """The folder of runs, for the pages that compare, chat and train."""
    workers: int = 1
    """Processes that answer, for a company of labelers: the store may be PostgreSQL or, on one machine, SQLite. With
    several there are only the feedback pages: those that compare, chat and train keep models in one process's memory."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"{self.workers} cannot be used", where="option --workers", mend="give 1 or more")


@dataclass(kw_only=True)
class InviteOptions(StoreOptions):
    """Make an invitation for one account."""

    role: Role = "labeler"
    url: str = "http://127.0.0.1:8000"
    """The server's address, for the link."""


@dataclass(kw_only=True)
class PasswordOptions(StoreOptions):
    """Make a link with which a person sets a new password: good once, for a day. Their sessions end when it is used."""

    name: Positional[str]
    """The name of an account, an administrator's too."""
    url: str = "http://127.0.0.1:8000"
    """The server's address, for the link."""


@dataclass(kw_only=True)
class TokenOptions(StoreOptions):
    """Make a token for a program; it is shown once. `--revoke` ends one by its name."""

    name: Positional[str]
    """What it is for."""
    person: str = ""
    """Whose it is: the name of an account. The only administrator when not given."""
    scopes: tuple[str, ...] = ("models",)
    """What it may do: models, label, export."""
    days: int | None = None
    """How long it is good; without end when not given."""
    revoke: bool = False


@dataclass(kw_only=True)
class QualityOptions(StoreOptions):
    """Agreement with 95 % intervals, and each labeler's reliability."""

    project: str


def serve(options: ServeOptions) -> None:
    from tutelage.serving.listening import listen, trusted_proxies
    from tutelage.web.server import serve
    from tutelage.workbench.bench import Workbench

    proxies = trusted_proxies(options.trusted_proxy)
    bench = Workbench(Path(options.runs).expanduser())
    store, listener = open_store(options, create=True), listen(options.host, options.port)
    serve(
        store,
        options.host,
        listener,
        accounts=options.accounts,
        workbench=bench,
        proxies=proxies,
        workers=options.workers,
    )


def invite(options: InviteOptions) -> dict[str, Any]:
    from tutelage.feedback import people
    from tutelage.feedback.store import COMMAND_LINE

    with open_store(options).write() as db:
        return {"link": f"{options.url.rstrip('/')}/join/{people.invite(db, options.role, COMMAND_LINE)}"}


def password(options: PasswordOptions) -> dict[str, Any]:
    from tutelage.feedback import passwords, people
    from tutelage.feedback.store import COMMAND_LINE

    with open_store(options).write() as db:
        person = people.by_name(db, options.name)
        if person is None:
            raise UserError("there is no such account", where=options.name, mend="the People page lists the accounts")
        return {"link": f"{options.url.rstrip('/')}/password/{passwords.make_link(db, person, COMMAND_LINE)}"}


def token(options: TokenOptions) -> dict[str, Any]:
    from sqlalchemy import select

    from tutelage.feedback import tokens
    from tutelage.feedback.schema import ApiToken, Person
    from tutelage.feedback.store import COMMAND_LINE

    with open_store(options).write() as db:
        if options.revoke:
            rows = db.scalars(select(ApiToken).filter_by(name=options.name, revoked=None)).all()
            if not rows:
                raise UserError(f"there is no token {options.name!r}", mend="the People page lists the tokens")
            for row in rows:
                tokens.revoke(db, row, COMMAND_LINE)
            return {"revoked": len(rows)}
        who = select(Person).where(Person.name == options.person if options.person else Person.role == "admin")
        found = list(db.scalars(who.where(Person.active)))
        if len(found) != 1:
            what = "there is no such account" if not found else "there are several administrators"
            raise UserError(what, where="option --person", mend="name one account of the People page")
        return {"token": tokens.make_token(db, found[0], options.name, options.scopes, options.days, COMMAND_LINE)}


def quality(options: QualityOptions) -> dict[str, Any]:
    from tutelage.feedback.breakdown import by_category, categories, over_time
    from tutelage.feedback.habits import habits
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.quality import agreement, compare_all, gold_kappas, read_rankings, shared_parts
    from tutelage.feedback.step_agreement import step_agreement

    with open_store(options).read() as db:
        project = find_project(db, options.project)
        rankings = read_rankings(db, project)
        compared = compare_all(rankings)
        everybody, known = habits(db, project)
        shared = shared_parts(rankings)
        unit, periods = over_time(compared, shared)
        found: dict[str, Any] = {
            **agreement(rankings),
            "by_category": [
                row.to_json("category") for row in by_category(compared, categories(db, project, rankings), shared)
            ],
            f"by_{unit}": [row.to_json(unit) for row in periods],
            "steps": step_agreement(db, project),
            "habits": everybody.to_json(),
        }
        people = _people(db, project, rankings, compared, gold_kappas(db, project))
    found["labelers"] = {name: {**row, **known[name].to_json()} for name, row in people.items()}
    return found if options.json else _flat(found)


def _people(db: Any, project: Any, rankings: Any, compared: Any, kappas: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Each labeler's agreement, gold accuracy and weight."""
    from tutelage.feedback.quality import gold_accuracy, labeler_agreement, labeler_figures, weights_of

    beside = labeler_figures(rankings)
    agreed, gold, weights = labeler_agreement(compared), gold_accuracy(db, project), weights_of(rankings)
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted({one.labeler for one in rankings}):
        row: dict[str, Any] = {}
        for key, pairs, share in (
            ("agreement", "pairs", agreed.get(name)),
            ("gold_accuracy", "gold_pairs", gold.get(name)),
        ):
            row[key] = share and share.value
            row[f"{key}_ci95"] = share and share.to_json()["ci95"]
            row[pairs] = share.n if share else 0
        rows[name] = {**row, **beside.get(name, {}), "gold_kappa": kappas.get(name), "weight": weights.get(name)}
    return rows


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """For a terminal: a line for each category, period and labeler."""
    lines: dict[str, Any] = {}
    for key, value in found.items():
        if key.startswith("by_"):
            for row in value:
                name, *numbers = row.items()
                lines[f"{name[0]} {name[1]}"] = ", ".join(f"{what} {number}" for what, number in numbers)
        elif key == "labelers":
            lines |= {f"labeler {name}": row for name, row in value.items()}
        else:
            lines[key] = value
    return lines


def new(options: NewOptions) -> dict[str, Any]:
    from tutelage.feedback.projects import create_project

    text = _text_file(options.instructions) if options.instructions else ""
    with open_store(options, create=True).write() as db:
        project = create_project(
            db, options.name, overlap=options.overlap, gold_every=options.gold_every, instructions=text
        )
        note(db, "make project", project.id)
    return {"project": project.id}


def import_(options: ImportOptions) -> dict[str, Any]:
    from tutelage.feedback.imports import import_file
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.screening import import_screening

    if options.gold + options.answers + bool(options.screening) > 1:
        raise UserError("the file is one of these", where="--gold, --answers, --screening", mend="give one of them")
    if options.labeler and not options.answers:
        raise UserError("names a labeler of no answers", where="option --labeler", mend="give --answers too")
    with open_store(options).write() as db:
        project = find_project(db, options.project)
        if options.screening:
            done = import_screening(db, project, Path(options.file), options.screening)
            project.screening = True
        else:
            done = import_file(
                db,
                project,
                Path(options.file),
                options.tasks,
                gold=options.gold,
                answers=options.answers,
                labeler=options.labeler,
            )
        note(db, "import", f"{project.id}: {done.tasks} tasks")
    for line in done.left_out:
        show(f"left out: {line}")
    return {
        "prompts": done.prompts,
        "completions": done.completions,
        "tasks": done.tasks,
        **({"answers": done.answers} if options.answers else {}),
        "left_out": len(done.left_out),
    }


def round_(options: RoundOptions) -> dict[str, Any]:
    from tutelage.feedback.rounds_run import run_rounds

    settings = RoundSettings(**{one.name: getattr(options, one.name) for one in fields(RoundSettings)})
    store = open_store(options)
    out = Path(options.out)
    done = run_rounds(store, options.project, settings, out, count=options.rounds, wait=options.wait)
    return {"rounds": done} if options.json else {f"round {row.pop('round')}": row for row in done}


def export(options: ExportOptions) -> dict[str, Any]:
    from tutelage.feedback.export import export_folder
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.quality import project_weights, read_rankings, soft_labels

    store = open_store(options)
    with store.read() as db:
        project = find_project(db, options.project)
        weights = project_weights(db, project) if options.weights else None
        labels = soft_labels(read_rankings(db, project)) if options.soft else None
        counts = export_folder(db, project, Path(options.out), weights, labels)
    with store.write() as db:
        note(db, "export", project.id)
    return {"out": options.out, **counts, **({"weights": weights} if options.weights else {})}


def prioritize(options: PrioritizeOptions) -> dict[str, Any]:
    from tutelage.feedback.projects import find_project
    from tutelage.feedback.queue import read_priorities, set_priorities

    if bool(options.file) == (len(options.reward_models) > 1):
        raise UserError("needs a file, or two reward models or more", mend="give --file, or --reward-models A B")
    store = open_store(options)
    if options.file:
        priorities = read_priorities(Path(options.file))
    else:
        from tutelage.stages.prioritize import ensemble_priorities

        priorities = ensemble_priorities(store, options.project, options.reward_models)
    with store.write() as db:
        project = find_project(db, options.project)
        items = set_priorities(db, project, priorities)
        note(db, "prioritize", f"{project.id}: {items} items")
    return {"items": items}


def backup(options: BackupOptions) -> dict[str, Any]:
    from tutelage.feedback import copies

    store = open_store(options)
    copies.backup(store, Path(options.out))
    with store.write() as db:
        note(db, "backup", Path(options.out).name)
    return {"out": options.out}


def restore(options: RestoreOptions) -> dict[str, Any]:
    from tutelage.feedback import copies

    return copies.restore(options.store, Path(options.backup), force=options.force)


ACTIONS: dict[str, tuple[type[StoreOptions], Callable[[Any], dict[str, Any] | None], str]] = {
    "serve": (ServeOptions, serve, "serve the pages alone; `tutelage serve` has the models too"),
    "new": (NewOptions, new, "make a project"),
    "import": (ImportOptions, import_, "add prompts and completions to label"),
    "prioritize": (PrioritizeOptions, prioritize, "say which items come first"),
    "round": (RoundOptions, round_, "samples → labels → training, and again"),
    "jobs": (feedback_jobs.JobsOptions, feedback_jobs.jobs, "what goes on behind the pages; stop, try again"),
    "work": (feedback_jobs.WorkOptions, feedback_jobs.work, "do the jobs of a store, here"),
    "figures": (feedback_jobs.FiguresOptions, feedback_jobs.figures, "work out what a project's pages tell of quality"),
    "export": (ExportOptions, export, "write the answers as records to train on"),
    "quality": (QualityOptions, quality, "agreement and reliability of the labelers"),
    "invite": (InviteOptions, invite, "a link that makes one account"),
    "password": (PasswordOptions, password, "a link that sets a person's new password"),
    "token": (TokenOptions, token, "a token with which a program signs in"),
    "backup": (BackupOptions, backup, "copy a store while it is in use"),
    "restore": (RestoreOptions, restore, "make the store of a backup"),
}


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    action = arguments[0] if arguments else ""
    if action in ("", "-h", "--help"):
        print("usage: tutelage feedback ACTION [options]   (tutelage feedback ACTION --help)\n")
        print("\n".join(f"  {name:<10} {about}" for name, (_, _, about) in ACTIONS.items()))
        return None
    if action not in ACTIONS:
        near = did_you_mean(action, list(ACTIONS))
        raise UserError(
            f"unknown action {action!r}{near}", where="tutelage feedback", mend=f"use one of: {', '.join(ACTIONS)}"
        )
    cls, function, _ = ACTIONS[action]
    options = parse_words(cls, f"feedback {action}", arguments[1:])
    result = function(options)
    if result is not None and not options.json:
        print("\n".join(f"{name}: {value}" for name, value in result.items()))
    return result


def _text_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=path, mend="give a UTF-8 text file") from error
