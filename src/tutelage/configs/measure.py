"""Options of the stages that do not train: sampling, labeling, evaluation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.configs.base import (
    ModelConfig,
    StageConfig,
    invalid,
    require_not_negative,
    require_positive,
    require_share,
)

Split = Literal["train", "tune", "report"]
ENDPOINTS = ("openai:", "anthropic:")


@dataclass(kw_only=True, frozen=True)
class SampleConfig(ModelConfig):
    """`tutelage sample`: draw completions of prompts into a file of completion records."""

    verb: ClassVar[str] = "sample"
    model: str = "world"
    """A Hugging Face folder, a run's folder, `world` for the embedded world's base model, or a model behind an API
    (openai:URL#MODEL, openai:MODEL, anthropic:MODEL)."""
    samples: int = 1
    """Completions a prompt, K."""
    prompts: int | None = None
    """Use this many prompts; all when not given."""
    split: Literal["train", "tune", "report", "all"] | None = None
    """Which share of the prompts; when not given, all of a file's, and the world's for training. In a recipe, those for training."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    min_new_tokens: int = 0
    """An answer does not end before it is this long."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Sample from the most likely tokens that hold this share."""
    top_k: int = 0
    """Sample from this many of the most likely tokens; 0 for all."""
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest one's probability (Nguyen et al. 2024)."""
    stop: tuple[str, ...] = ()
    """An answer ends before any of these strings."""
    batch_size: int = 256
    """Sequences decoded together."""
    backend: Literal["tutelage", "vllm"] = "tutelage"
    """The sampler: our own, or vLLM, which you install."""

    @property
    def draws_itself(self) -> bool:
        """With our sampler: not vLLM, which has processes of its own, and no model behind an API."""
        return self.backend == "tutelage" and not self.model.startswith(ENDPOINTS)

    def check(self) -> None:
        super().check()
        require_positive(self, "samples", "max_new_tokens", "batch_size", "top_p")
        require_share(self, "top_p", "min_p")
        require_not_negative(self, "min_new_tokens", "temperature", "top_k")
        if not all(self.stop):
            raise invalid("stop", "", "give strings that are not empty")
        if self.prompts is not None:
            require_positive(self, "prompts")
        if self.min_new_tokens > self.max_new_tokens:
            raise invalid("min_new_tokens", self.min_new_tokens, f"give at most max_new_tokens ({self.max_new_tokens})")


@dataclass(kw_only=True, frozen=True)
class LabelConfig(StageConfig):
    """`tutelage label --by WHO`: rank the completions of a file into comparison records, or a project's items."""

    verb: ClassVar[str] = "label"
    by: str = "world:fair"
    """Who ranks: `world:fair`, `world:length`, `world:flattered`, `world:careless`, `world:held-out`; a reward model
    (model:CHECKPOINT); a language model (openai:URL#MODEL, anthropic:MODEL, local:CHECKPOINT). With --project the
    world's and language models also judge steps, write and flag; a process reward model judges steps."""
    project: str | None = None
    """Take items of this project's queue, by the rules that hold for people, in place of --data and --out."""
    store: str | None = None
    """The project's store: a SQLite file, or postgresql://user@host/name; TUTELAGE_STORE or feedback.db when not given."""
    overlap: float = 0.15
    """Share of the prompts that a second labeler ranks too, to measure agreement."""
    rate: bool = False
    """With --project: also rate each answer from 1 to 7 and mark what holds of it (the world's labelers and language
    models; a call an answer)."""

    def check(self) -> None:
        super().check()
        require_share(self, "overlap")
        if self.rate and self.project is None:
            raise invalid("rate", self.rate, "give --project too: a file holds ranks only")


@dataclass(kw_only=True, frozen=True)
class EvalConfig(ModelConfig):
    """`tutelage eval`: win rates and behaviours of models on held-out prompts."""

    verb: ClassVar[str] = "eval"
    models: tuple[str, ...] = ()
    """NAME=CHECKPOINT for each model to compare; the first is the baseline. With --judge also an endpoint
    (openai:URL#MODEL, anthropic:MODEL) or a file of outputs."""
    judge: tuple[str, ...] = ()
    """Who compares: reward:CHECKPOINT, openai:URL#MODEL, anthropic:MODEL, local:CHECKPOINT, gold, or people:FILE and
    people:PROJECT[@STORE], who compared the same answers before. When not given: gold and the held-out labelers in the
    world, the reward model elsewhere."""
    reward_model: str | None = None
    """Reward model to score with and to report on."""
    prompts: int = 400
    """Held-out prompts for the win rates."""
    split: Split = "report"
    """Which share of the prompts; no training ever reads `report`."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    probes: int = 0
    """Facts to probe for sycophancy (opinion, feedback, are you sure?); 0 for none. Without the world 24 at most."""
    tasks: tuple[str, ...] = ()
    """Capability tasks before and after: world (or world:facts, world:reading, world:counting, world:sorting), a file of
    questions (.jsonl …), a task file of EleutherAI's lm-eval (.yaml) or the name of one of its tasks, or none. When not
    given: the world's in the world, none elsewhere."""
    rubric: bool = False
    """Let each language-model judge rate every answer by itself too: quality from 1 to 7 and the paper's marks."""
    length_data: str | None = None
    """File for the rates at equal lengths: a row for each prompt with its `instruction_difficulty`, and rows of gamed
    baselines with `preference` and `std_delta_len`; with it they are AlpacaEval 2's. Without it those terms are left out."""
    kl_from: str | None = None
    """Name of the model that each other one's KL is measured from, on its own answers; not measured when not given."""
    prompted: str | None = None
    """Name of a model that answers a second time, as NAME-prompted, with demonstrations before each prompt (the paper's
    few-shot prefix of GPT-3)."""
    price_per_million: tuple[str, ...] = ()
    """IN,OUT: US dollars a million tokens read and written by an endpoint; MODEL=IN,OUT for one model of several."""
    yes: bool = False
    """Ask endpoints even where the estimate is above a dollar, or above 1000 calls of unknown price."""

    def check(self) -> None:
        super().check()
        prices_of(self.price_per_million)
        require_positive(self, "prompts", "max_new_tokens")
        require_not_negative(self, "temperature", "probes")
        if self.kl_from is not None and self.judge:
            raise invalid("kl_from", self.kl_from, "measure the KL without --judge, which compares texts alone")
        if self.kl_from is not None and self.temperature != 1:
            raise invalid("temperature", self.temperature, "measure the KL at 1, the distribution that training sees")
        if self.rubric and not self.judge:
            raise invalid("rubric", True, "it belongs to --judge; the world's judge rates by itself")
        if self.length_data is not None and not self.judge:
            raise invalid("length_data", self.length_data, "it belongs to --judge")
        if self.prompted is not None and self.judge:
            raise invalid("prompted", self.prompted, "ask without --judge, which takes models as they are")


def prices_of(specs: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Dollars a million tokens, in and out, by the model's name; "" is any other model."""
    found = {}
    for spec in specs:
        name, _, pair = spec.rpartition("=")
        try:
            read, written = (float(part) for part in pair.split(","))
        except ValueError:
            read = written = -1.0
        if not (0 <= read < float("inf") and 0 <= written < float("inf")):
            raise invalid("price_per_million", spec, "write IN,OUT in dollars, as in 2.50,10, or MODEL=IN,OUT")
        found[name] = (read, written)
    return found
