"""Checkpoints in and out: Hugging Face folders that plain `transformers` loads, checked on save.

Beside the weights stands `tutelage.json`: role, parent, hashes, config, versions.
"""

import copy
import json
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.utils import logging as transformers_logging

from tutelage.data.templates import end_ids
from tutelage.engine.attention import NAME
from tutelage.engine.choosing import SamplingParams
from tutelage.engine.device import CPU, device_of, multiplies_bfloat16, resolve_device
from tutelage.engine.layers import use_own_layers
from tutelage.engine.logprobs import capped, head_of
from tutelage.engine.memory import keep_freed_memory
from tutelage.engine.packing import context_of_config, pack
from tutelage.engine.sharding import plain_state, whole
from tutelage.engine.vllm import VLLM
from tutelage.errors import UserError
from tutelage.models.adapters import (
    CONFIG,
    HEAD,
    Adapters,
    base_of,
    import_peft,
    is_adapter,
    merged,
    read_adapter,
    write_adapter,
)
from tutelage.models.architecture import check_architecture
from tutelage.models.padding import TRAINED_PADDING, pad_token_id, padded_beside
from tutelage.models.roles import Lora, Policy, Role, ScalarModel, StepModel, hidden_states
from tutelage.processes import is_main
from tutelage.runs import check_folder
from tutelage.runs.files import naming_full_disk, sync_tree

HEADS = (HEAD, "classifier")  # names of new heads; of the second kind none is used here, which is said

# What its warnings are about (missing weights, long sequences) is checked here and said in one message.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def resolve(model: str) -> Path:
    """The folder that a `--model` option names, checked; `world` is the embedded world's base."""
    if model == "world":
        from tutelage.world import base_path

        return base_path()
    path = Path(model).expanduser()
    if not path.exists():
        raise UserError("there is no such folder", where=model, mend="give a Hugging Face model folder, or `world`")
    if is_adapter(path):
        resolve(base_of(path))
    elif not (path / "config.json").exists():
        latest = path / "checkpoints" / "latest"
        if (latest / "config.json").exists() or is_adapter(latest):
            return resolve(str(latest))
        raise UserError(
            "is not a model folder: it has no config.json", where=model, mend="give a Hugging Face model folder"
        )
    else:
        try:
            json.loads((path / "config.json").read_text())
        except ValueError as error:
            raise UserError(f"config.json is not JSON ({error})", where=model, mend="save the model again") from error
    if not list(path.glob("*.safetensors")) and not list(path.glob("*.bin")):
        raise UserError("has no weights", where=model, mend="a model folder holds model.safetensors")
    if not (path / "tokenizer_config.json").exists() and not (path / "tokenizer.json").exists():
        raise UserError("has no tokenizer", where=model, mend="save the tokenizer into the same folder")
    return path.resolve()


def compute_dtype(name: str, device: torch.device = CPU) -> torch.dtype:
    """`auto` is bfloat16 where the GPU or the processor multiplies it natively."""
    if name == "auto" and device.type == "cuda":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name == "auto":
        fast = torch.cpu.is_available() and ("avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags())
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, name)


def _cpu_flags() -> str:
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return ""


def load_tokenizer(path: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise UserError(
            f"the tokenizer does not load ({error})", where=str(path), mend="save the tokenizer again"
        ) from error
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template", where=str(path), mend="set tokenizer.chat_template and save it again"
        )
    return tokenizer


def _load(
    auto: Any, path: Path, dtype: str, device: str, new: tuple[str, ...] = (), config: PretrainedConfig | None = None
) -> Any:
    """A model whose weights all come from the folder, but for those whose names begin with one of `new`; on the device."""
    keep_freed_memory()
    there = resolve_device(device)
    options: dict[str, Any] = {"dtype": compute_dtype(dtype, there), "attn_implementation": NAME}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # reported below
    if config is not None:
        _check_kind(auto, config, path)
        options["config"] = config
    try:
        try:
            model, info = auto.from_pretrained(path, **options)
        except KeyError as error:
            if error.args != (NAME,):  # not looked for in a table of its own ways to attend
                raise
            model, info = auto.from_pretrained(path, **{**options, "attn_implementation": None})
    except Exception as error:
        raise UserError(
            f"the model does not load ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=str(path),
            mend="check the folder",
        ) from error
    for name, held, expected in sorted(info["mismatched_keys"]):
        what = f"weight {name} has shape {list(held)} instead of {list(expected)}"
        raise UserError(what, where=str(path), mend="use weights and config.json of one model")
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith(new)]
    if missing:
        what = f"weight {missing[0]} is missing ({len(missing)} in all)"
        raise UserError(what, where=str(path), mend="use a whole checkpoint of this architecture")
    broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise UserError(
            f"weight {broken[0]} holds NaN or infinite values", where=str(path), mend="use a sound checkpoint"
        )
    if model.base_model is model and hasattr(model, "model"):
        model.base_model_prefix = "model"  # Llama 4's class misnames its body
    use_own_layers(model)
    model.to(there)
    check_architecture(model.eval(), path)
    return model


def load_policy(
    model: str | Path, dtype: str = "auto", lora: Mapping[str, Any] | None = None, *, device: str = "auto"
) -> Policy:
    """A policy on a device (auto, cpu, cuda or cuda:N). lora: r, lora_alpha and target_modules of an adapter to train, the weights frozen; a folder that holds
    an adapter goes on with its own. Without lora an adapter is added into the weights.
    """
    path = resolve(str(model))
    base = base_path_of(path)
    tokenizer = load_tokenizer(path)
    loaded = _load(AutoModelForCausalLM, base, dtype, device)
    check_vocabulary(loaded, tokenizer, path)
    policy = Policy(loaded, tokenizer)
    if lora is not None:
        _adapt(policy, path, base, lora)
    elif is_adapter(path):
        policy.model = merged(loaded, path)
    return policy


def load_vllm(
    model: str, dtype: str, max_length: int, params: SamplingParams, *, device: str = "auto", gpus: float | None = None
) -> Policy:
    """A policy that vLLM samples from; it can do nothing else. gpus: of one whose weights are replaced (see `VLLM`)."""
    path = resolve(model)
    if is_adapter(path) and gpus is None:
        mend = "merge it first (tutelage export), or leave --backend out"
        raise UserError("is an adapter, and vLLM reads whole weights here", where=str(path), mend=mend)
    base, tokenizer = base_path_of(path), load_tokenizer(path)
    name = str(compute_dtype(dtype, resolve_device(device))).removeprefix("torch.")
    longest = min(max_length + params.max_new_tokens, context_of_config(AutoConfig.from_pretrained(base)))
    return Policy(VLLM(str(base), name, longest, params, gpus), tokenizer)


def base_path_of(path: Path) -> Path:
    """The folder of the weights: of an adapter its base's, else the folder itself."""
    return resolve(base_of(path)) if is_adapter(path) else path


def _adapt(role: Role, path: Path, base: Path, lora: Mapping[str, Any]) -> None:
    """Freeze the weights; train the folder's adapter, or a fresh one."""
    role.model.name_or_path = str(base)
    if not is_adapter(path):
        role.add_adapter(lora)
        return
    adapters = Adapters(role.model.base_model, str(base))
    role.model.requires_grad_(False)
    role.lora = _read_into(role, adapters, path)


def _read_into(role: Role, adapters: Adapters, path: Path) -> Lora:
    """Put a folder's adapter (and its head, into a scalar model) beside those that are there."""
    config, state = read_adapter(path)
    name = adapters.add(config)
    prefix = f"{role.model.base_model_prefix}."
    if isinstance(role, ScalarModel):
        role.model.score.weight.data.copy_(state[f"{HEAD}.weight"])
    try:
        adapters.load(name, {key.removeprefix(prefix): value for key, value in state.items()})
    except (KeyError, RuntimeError) as error:
        what = f"the adapter does not fit its base model ({error})"
        raise UserError(what, where=str(path), mend="use the base that it was trained on") from error
    return Lora(adapters, name)


def check_vocabulary(model: Any, tokenizer: Any, path: Path) -> None:
    """Every token has its row in the embedding (which may have more, for speed)."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        what = f"the tokenizer has {len(tokenizer)} tokens, the model's embedding only {rows}"
        raise UserError(what, where=str(path), mend="save the tokenizer that belongs to the model, or resize the model")


def is_scalar(path: Path) -> bool:
    """Whether a checkpoint has a scalar head."""
    if is_adapter(path):
        return json.loads((path / CONFIG).read_text()).get("task_type") == "SEQ_CLS"
    architectures = AutoConfig.from_pretrained(path).architectures or []
    return any("ForSequenceClassification" in name for name in architectures)


def load_scalar(
    model: str | Path,
    dtype: str = "auto",
    *,
    trained: bool = True,
    lora: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> ScalarModel:
    """A model with a scalar head. With trained=False the head is new, N(0, 1/(d+1)) (Stiennon et al. 2020).

    lora: as in `load_policy`; the head is trained beside the adapter.
    """
    path = resolve(str(model))
    base = base_path_of(path)
    _check_trained(path, trained)
    tokenizer = load_tokenizer(path)
    has_head = is_scalar(base)
    config, new = _head_config(AutoConfig.from_pretrained(base), 1, tokenizer), () if has_head else HEADS
    loaded = _load(AutoModelForSequenceClassification, base, dtype, device, new, config)
    check_vocabulary(loaded, tokenizer, path)
    if not hasattr(loaded, HEAD):
        raise UserError(
            "this architecture has no scalar head named `score`", where=str(model), mend="use a decoder model"
        )
    if not has_head:
        _begin_head(loaded.score)
    scalar = ScalarModel(loaded, tokenizer, bias=reward_bias(path))
    if lora is not None:
        _adapt(scalar, path, base, lora)
    elif is_adapter(path):
        scalar.model = merged(loaded, path)
    return scalar


@torch.no_grad()
def _begin_head(score: torch.nn.Linear) -> None:
    """N(0, 1/(d+1)) for the weights, drawn on the host: the same on every device; 0 for a bias."""
    drawn = torch.empty_like(score.weight, device=CPU).normal_(std=(score.in_features + 1) ** -0.5)
    score.weight.copy_(drawn)
    if score.bias is not None:
        score.bias.zero_()


def _check_trained(path: Path, trained: bool) -> None:
    if trained and not is_scalar(path):
        raise UserError("is not a reward model", where=str(path), mend="give a checkpoint that `tutelage reward` wrote")
    if not trained and is_adapter(path) and not is_scalar(path):
        what = "is an adapter of a policy: a reward model needs weights, or an adapter of its own, to start from"
        raise UserError(what, where=str(path), mend="give its base model, or merge it first: tutelage export")


def load_scalar_beside(policy: Policy, model: Path) -> ScalarModel:
    """The scalar model of an adapter whose base is the policy's: the policy's weights serve both."""
    assert policy.lora is not None
    tokenizer = load_tokenizer(model)
    body, config = policy.model.base_model, _head_config(copy.deepcopy(policy.model.config), 1, tokenizer)
    with torch.device("meta"):
        wrapper = AutoModelForSequenceClassification.from_config(config)
    setattr(wrapper, wrapper.base_model_prefix, body)
    options: dict[str, Any] = {"dtype": policy.model.dtype, "device": device_of(policy.model)}
    wrapper.score = torch.nn.Linear(wrapper.score.in_features, 1, bias=False, **options)
    scalar = ScalarModel(wrapper.eval(), tokenizer, bias=reward_bias(model))
    scalar.lora = _read_into(scalar, policy.lora.adapters, model)
    return scalar


def reward_bias(path: Path) -> float:
    """The zero of a reward model: in its config.json, or beside an adapter in tutelage.json."""
    file = path / ("tutelage.json" if is_adapter(path) else "config.json")
    return float(json.loads(file.read_text()).get("reward_bias", 0.0)) if file.exists() else 0.0


def is_step_model(model: str | Path) -> bool:
    """Whether the checkpoint is a process reward model."""
    path = resolve(str(model))
    if is_adapter(path):  # has no config of a whole model
        return False
    config = AutoConfig.from_pretrained(path)
    return any("ForTokenClassification" in name for name in (config.architectures or []))


def load_step_model(model: str | Path, dtype: str = "auto", *, trained: bool = True, device: str = "auto") -> StepModel:
    """A process reward model, or with trained=False a language model with a new head of two labels."""
    path = resolve(str(model))
    has_head = is_step_model(path)
    if trained and not has_head:
        raise UserError("is not a process reward model", where=str(model), mend="give what `tutelage prm` wrote")
    tokenizer = load_tokenizer(path)
    config, new = _head_config(AutoConfig.from_pretrained(path), 2, tokenizer), () if has_head else HEADS
    loaded = _load(AutoModelForTokenClassification, path, dtype, device, new, config)
    check_vocabulary(loaded, tokenizer, path)
    if not hasattr(loaded, "score"):
        raise UserError("has no head named `score` for tokens", where=str(model), mend="use a decoder model")
    if not has_head:
        _begin_head(loaded.score)
    aggregation, each_step = getattr(config, "aggregation", "min"), getattr(config, "each_step", True)
    return StepModel(loaded, tokenizer, aggregation=aggregation, each_step=each_step)


def _head_config(config: PretrainedConfig, labels: int, tokenizer: Any) -> PretrainedConfig:
    """The configuration of a model with a head of so many labels, to train or to score."""
    config.num_labels = labels
    config.get_text_config().pad_token_id = getattr(config, TRAINED_PADDING, pad_token_id(tokenizer))
    return config


def _check_kind(auto: Any, config: PretrainedConfig, path: Path) -> None:
    """A UserError where `transformers` has no class with such a head: a checkpoint could not be loaded by it."""
    if type(config) not in auto._model_mapping:
        what = f"transformers has no {auto.__name__.removeprefix('Auto')} for a model of type {config.model_type}"
        raise UserError(what, where=str(path), mend="start from a model of another architecture")


def save_model(folder: Path, role: Policy | ScalarModel | StepModel, about: dict[str, Any], *, verify: bool) -> None:
    """Write weights, tokenizer and `tutelage.json`; with verify, load them again and compare the scores.

    Every process takes part for a sharded model; the main one writes.
    """
    with whole(role.model):
        if is_main():
            with padded_beside(role):
                _write(folder, role, about)
            if verify:
                reload_and_compare(folder, role)


def _write(folder: Path, role: Policy | ScalarModel | StepModel, about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = role.model
    if isinstance(role, StepModel):
        model.config.aggregation, model.config.each_step = role.aggregation, role.each_step
    versions = {name: metadata.version(name) for name in ("tutelage", "torch", "transformers")}
    about = {**about, "versions": versions}
    if isinstance(role, ScalarModel):
        model.config.reward_bias = role.bias
    if role.lora is not None and role.lora.name is not None:
        head = model.score if isinstance(role, ScalarModel) else None
        write_adapter(folder, role.lora.adapters, role.lora.name, model.base_model_prefix, head)
        about["base"] = role.lora.adapters.base
        if isinstance(role, ScalarModel):
            about["reward_bias"] = role.bias
    else:
        implementation = model.config._attn_implementation
        model.config._attn_implementation = None
        try:
            model.save_pretrained(folder, state_dict=plain_state(model))
        finally:
            model.config._attn_implementation = implementation
    role.tokenizer.save_pretrained(folder)
    (folder / "tutelage.json").write_text(json.dumps(about, indent=2, default=str) + "\n")


def export_model(model: str, out: str) -> dict[str, Any]:
    """Copy a checkpoint to a new folder, whole or not at all, once the copy was loaded and compared.

    An adapter is added into its base's weights, in float32, and written in the base's type.
    """
    source, target = resolve(model), Path(out).expanduser()
    if target.exists():
        raise UserError("is there already", where=out, mend="choose another --out")
    check_folder(target)
    load = load_scalar if is_scalar(source) else load_step_model if is_step_model(source) else load_policy
    role: Policy | ScalarModel | StepModel = load(source, "float32", device="cpu")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with naming_full_disk(target):
        try:
            if is_adapter(source):
                role.model.to(AutoConfig.from_pretrained(base_path_of(source)).dtype or torch.float32)
                beside = source / "tutelage.json"
                about = json.loads(beside.read_text()) if beside.exists() else {}
                save_model(temporary, role, about, verify=True)
            else:
                shutil.copytree(source, temporary)
                reload_and_compare(temporary, role)
            sync_tree(temporary)
            os.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    kinds = {ScalarModel: "reward", StepModel: "process", Policy: "policy"}
    return {"role": kinds[type(role)], "source": str(source), "out": str(target)}


@torch.no_grad()
def reload_and_compare(folder: Path, role: Policy | ScalarModel | StepModel) -> None:
    """Load the folder with plain `transformers` and compare outputs on a probe; a difference fails the save."""
    auto: Any = AutoModelForCausalLM
    if isinstance(role, ScalarModel | StepModel):
        auto = AutoModelForSequenceClassification if isinstance(role, ScalarModel) else AutoModelForTokenClassification
    training = role.model.training
    role.model.eval()
    if is_adapter(folder):
        config = AutoConfig.from_pretrained(base_of(folder))
        if isinstance(role, ScalarModel):
            config.num_labels = 1
            config.get_text_config().pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
        plain = auto.from_pretrained(base_of(folder), config=config, dtype=role.model.dtype)
        plain = import_peft().PeftModel.from_pretrained(plain, str(folder)).eval()
        role.activate()
    else:
        plain = auto.from_pretrained(folder, dtype=role.model.dtype).eval()
    text = "A probe: the same words must get the same scores."
    ids = role.tokenizer(text, add_special_tokens=False)["input_ids"][:32]
    if isinstance(role, ScalarModel):  # read at an answer's end
        ids += end_ids(role.tokenizer)
    packed = pack([ids])
    hidden = hidden_states(role.model, packed)
    theirs = plain(input_ids=torch.tensor([ids])).logits.float().flatten()
    scale = theirs.abs().max().clamp(min=1.0)
    if isinstance(role, ScalarModel):
        every = role.model.score(hidden).float().flatten()
        ours = every[-1:]
        scale = every.abs().max().cpu().clamp(min=1.0)  # the last score may be near zero; its rounding is not
    elif isinstance(role, StepModel):
        ours = role.model.score(hidden).float().flatten()
    else:
        ours = capped(hidden, head_of(role.model)).flatten()
    ours = ours.cpu()  # what was loaded again stays on the host: the device may be full
    role.model.train(training)
    # Another attention kernel rounds otherwise: a few units in the last place of bfloat16 over the layers.
    tolerance = 0.05 if role.model.dtype == torch.bfloat16 else 1e-3
    worst = float((ours - theirs).abs().max() / scale)
    if not worst <= tolerance:
        raise RuntimeError(f"{folder}: the saved model scores differently when loaded again (relative {worst:.2g})")
