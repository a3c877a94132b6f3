"""Identity of a run: the settings that decide its result, compared with an earlier run."""

import dataclasses
import enum
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from dataset_scripts.content import content_hash
from dataset_scripts.output import write_text_atomically
from dataset_scripts.splits import split_hash
from modeling_mpt.trainer_mpt import last_complete_checkpoint
from mpt_sentiment.recipe import TrainingSetup

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
METRICS_FILE = "metrics.json"

# Training arguments that do not change the result: paths, logging, publication, hardware. `seed` has its own entry.
NOT_IN_IDENTITY = frozenset(
    """
    output_dir logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id include_num_input_tokens_seen skip_memory_metrics save_on_each_node save_total_limit
    push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    resume_from_checkpoint restore_callback_states_from_checkpoint enable_jit_checkpoint do_train do_eval do_predict
    seed data_seed use_cpu local_rank debug deepspeed fsdp fsdp_config accelerator_config parallelism_config
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order per_device_eval_batch_size eval_accumulation_steps
    torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps feature_store
    """.split()
)


def digests_of(posts: DatasetDict) -> dict[str, str]:
    """Hash the ids of the splits, and the content that training reads."""
    return {"split_hash": split_hash(posts), "content_hash": content_hash(posts)}


def run_settings(setup: TrainingSetup, posts: DatasetDict, digests: dict[str, str] | None = None) -> dict[str, Any]:
    """Collect the settings that decide the result of a run, except its seed.

    Args:
        setup ([`TrainingSetup`]): arguments of the run.
        posts (`DatasetDict`): its posts.
        digests (`dict`, *optional*): [`digests_of`] the posts, if they are known.

    Returns:
        `model`, `data`, `lora` and `training`, each a JSON-serializable mapping. `data` holds digests of the split's
        ids and of the content that training reads, in place of paths.
    """
    training = {
        field.name: _plain(getattr(setup.training, field.name))
        for field in dataclasses.fields(setup.training)
        if field.name not in NOT_IN_IDENTITY and field.init
    }
    return {
        "model": dataclasses.asdict(setup.model),
        "data": digests or digests_of(posts),
        "lora": dataclasses.asdict(setup.lora) if setup.lora.lora else {},
        "training": training,
    }


def finished_metrics(output_dir: Path, settings: dict[str, Any], *, overwrite: bool, save: bool) -> dict | None:
    """Prepare an output folder; return the metrics if the same run has finished there.

    A run with other settings is replaced if it left neither metrics nor a checkpoint, or if `overwrite` is set.

    Args:
        output_dir (`Path`): folder of the run.
        settings (`dict`): [`run_settings`] with the seed.
        overwrite (`bool`): whether to delete an earlier run.
        save (`bool`): whether this process writes files.

    Returns:
        The metrics, or `None` if the run is to be started or resumed.

    Raises:
        ValueError: `output_dir` holds a run with other settings, or checkpoints of another program.
    """
    record, metrics = output_dir / SETTINGS_FILE, output_dir / METRICS_FILE
    settings = json.loads(json.dumps(settings))
    earlier = _read_json(record)
    if earlier is None and not overwrite and any(output_dir.glob("checkpoint-*")):
        raise ValueError(
            f"{output_dir} holds checkpoints of another program: it has no {SETTINGS_FILE}. Choose another "
            "--output_dir, or delete them with --overwrite."
        )
    if earlier is not None and not overwrite:
        different = differing_settings(earlier, settings)
        if different and (metrics.is_file() or last_complete_checkpoint(output_dir)):
            raise ValueError(
                f"{output_dir} holds a run with other settings ({', '.join(different)}). Choose another --output_dir, "
                "or start again with --overwrite."
            )
        if not different:
            return _read_json(metrics)
        logger.warning("%s: replacing a run with other settings that saved no checkpoint.", output_dir)
    if save:
        for checkpoint in output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        metrics.unlink(missing_ok=True)
        write_text_atomically(record, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return None


def differing_settings(earlier: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Name the settings that differ, as a user writes them."""
    names = []
    for part in ("model", "lora", "training"):
        mine, theirs = settings[part], earlier.get(part, {})
        names += [name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
    mine, theirs = settings["data"], earlier.get("data", {})
    if mine["split_hash"] != theirs.get("split_hash"):
        names.append("split: other posts or another split")
    elif mine["content_hash"] != theirs.get("content_hash"):
        names.append("content of the posts: edited texts, rationales, labels or images")
    if settings["seed"] != earlier.get("seed"):
        names.append("seed")
    return sorted(names)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete the file, or start again with --overwrite.") from error


def _plain(value: Any) -> Any:
    """Convert a value of a training argument to its JSON form."""
    if isinstance(value, enum.Enum):
        return value.value
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)
