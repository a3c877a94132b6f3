"""Pushes a folder to the Hub: the datasets of `publish.py`, or a trained model. Shows first what it would send."""

import dataclasses
import fnmatch
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from dataset_scripts.writing.card import RECORD_FILE, BuildRecord, read_records, render_card

logger = logging.getLogger(__name__)

# What the client raises for a broken connection: errors of its HTTP library, which one depends on its version, or
# RuntimeError around them.
_BROKEN = (*HfHubHTTPError.__bases__, RuntimeError)
CARD = "README.md"
MODEL_CONFIGS = ("config.json", "adapter_config.json")
# Of a training run, what others have no use for, or what names folders of the machine it ran on.
MODEL_STAYS = (
    "*checkpoint-*/*",
    "runs/*",
    "training_args.bin",
    "optimizer.*",
    "scheduler.*",
    "rng_state*",
    "trainer_state.json",
    "settings.json",
    "metrics.json",
    "predictions.parquet",
    "*.log",
    "*__pycache__/*",
)


@dataclasses.dataclass(frozen=True)
class Push:
    """What is to be sent where.

    Attributes:
        folder (`Path`): the local folder.
        repo_id (`str`): `owner/name`.
        repo_type (`str`): `"dataset"` or `"model"`.
        private (`bool`): the repository must be private.
        files (`dict[str, Path]`): path in the repository -> local file.
        stays (`list[str]`): files of the folder that are not sent.
        records (`dict[str, BuildRecord]`): the configurations of a dataset.
    """

    folder: Path
    repo_id: str
    repo_type: str
    private: bool
    files: dict[str, Path]
    stays: list[str]
    records: dict[str, BuildRecord]

    def describe(self) -> str:
        """The calls that `push` makes, and the files, for a person."""
        total = sum(path.stat().st_size for path in self.files.values())
        created = f"{self.repo_id!r}, repo_type={self.repo_type!r}, private={self.private}, exist_ok=True"
        lines = [
            f"HfApi().create_repo({created})",
            f"HfApi().create_commit({self.repo_id!r}, repo_type={self.repo_type!r}, operations=…)"
            f"  # one commit of {len(self.files)} files, {_size(total)}; what is there already is not sent again",
        ]
        lines += [f"  {name}  {_size(path.stat().st_size)}" for name, path in self.files.items()]
        for name in self.records:
            lines.append(f"  delete {name}/* that is not among these; other configurations of the repository stay")
        if self.stays:
            lines.append(f"Not sent: {', '.join(self.stays)}")
        foreign = [r.facts.title for r in self.records.values() if r.with_content and r.facts.own_terms]
        if foreign:
            lines.append(
                f"Note: this passes on texts and images of {', '.join(dict.fromkeys(foreign))}. Do so only if the "
                "terms of the original allow it; --without_content builds ids, labels and rationales alone."
            )
        return "\n".join(lines)


def plan_push(folder: str | Path, repo_id: str, private: bool = False) -> Push:
    """Looks at a folder and decides what it is and which of its files go to the Hub. Needs no network.

    Raises:
        ValueError: a bad repository id, or a folder that is neither a saved dataset nor a saved model, or not whole.
    """
    folder = Path(folder)
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"repo_id={repo_id!r}; write owner/name, where the owner is your user name or organisation.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the output folder of build_dataset.py or train.py.")
    records = read_records(folder)
    if records:
        files = _dataset_files(folder, records)
        repo_type = "dataset"
    elif any((folder / name).is_file() for name in MODEL_CONFIGS):
        files = _model_files(folder)
        repo_type = "model"
    else:
        inner = sorted(str(file.parent) for file in folder.glob("*/config.json"))
        raise ValueError(
            f"{folder} is neither a dataset (a folder with {RECORD_FILE} for each configuration, as build_dataset.py "
            "writes) nor a model (config.json, as train.py writes)."
            + (f" Did you mean {inner[0]!r}?" if inner else "")
        )
    everything = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    stays = sorted({_top(name, files) for name in everything - set(files)})
    return Push(folder, repo_id, repo_type, private, files, stays, records)


def push(plan: Push, token: str | None = None) -> str:
    """Sends the files of `plan` in one commit and returns the address of the repository.

    Files that the repository has already are not transferred. After a broken connection the same call goes on: what
    the Hub received is not sent again. Configurations that others pushed to a dataset repository stay, on the card
    too.

    Raises:
        ValueError: no token, one that the Hub refuses, or a public repository where a private one was asked for.
        ConnectionError: the upload stopped midway.
    """
    if token is None and get_token() is None:
        raise ValueError(
            "no token of the Hugging Face Hub was found; run `hf auth login` once, or set the environment variable "
            "HF_TOKEN. A token that may write is made at https://huggingface.co/settings/tokens."
        )
    api = HfApi(token=token)
    _asking(lambda: api.whoami(), plan)
    url = _asking(
        lambda: api.create_repo(plan.repo_id, repo_type=plan.repo_type, private=plan.private, exist_ok=True), plan
    )
    info = _asking(lambda: api.repo_info(plan.repo_id, repo_type=plan.repo_type), plan)
    if plan.private and not info.private:
        raise ValueError(
            f"{plan.repo_id} exists already and is public; nothing was sent. Make it private in its settings "
            f"(`hf repos settings {plan.repo_id} --type {plan.repo_type} --private`), or choose another name."
        )
    remote = {sibling.rfilename for sibling in info.siblings or []}
    operations: list[Any] = [CommitOperationAdd(name, path) for name, path in plan.files.items()]
    if plan.repo_type == "dataset":
        card = _asking(lambda: _merged_card(api, plan, remote, info.sha), plan)
        operations = [operation for operation in operations if operation.path_in_repo != CARD]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        operations += [CommitOperationDelete(name) for name in sorted(remote) if _is_stale(name, plan)]
    names = ", ".join(plan.records) or plan.folder.resolve().name
    commit = _asking(
        lambda: api.create_commit(
            plan.repo_id,
            operations,
            commit_message=f"Upload {names}",
            repo_type=plan.repo_type,
            parent_commit=info.sha,  # the card was merged with that state; a push by someone else must not be lost
        ),
        plan,
    )
    if commit.oid == info.sha:
        logger.info("%s is up to date: nothing was sent", plan.repo_id)
    return str(url)


def _dataset_files(folder: Path, records: dict[str, BuildRecord]) -> dict[str, Path]:
    names = [CARD]
    for config, record in records.items():
        names.append(f"{config}/{RECORD_FILE}")
        for files in record.files.values():
            for name, size in files.items():
                path = folder / config / name
                if not path.is_file() or path.stat().st_size != size:
                    raise ValueError(f"{path} is missing or not as it was written; build {config!r} again.")
                names.append(f"{config}/{name}")
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} has no {CARD}, without which load_dataset finds no configuration; build it again.")
    return {name: folder / name for name in names}


def _model_files(folder: Path) -> dict[str, Path]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sent = {name: path for name, path in files.items() if not _stays(name)}
    if not any(name.endswith((".safetensors", ".bin")) for name in sent):
        raise ValueError(f"{folder} holds a configuration but no weights; did the training finish?")
    return sent


def _stays(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return hidden or any(fnmatch.fnmatch(name, pattern) for pattern in MODEL_STAYS)


def _top(name: str, files: dict[str, Path]) -> str:
    """The file, or the folder above it if nothing of that folder is sent."""
    top, slash, _ = name.partition("/")
    return name if not slash or any(sent.startswith(f"{top}/") for sent in files) else f"{top}/"


def _is_stale(name: str, plan: Push) -> bool:
    return name.partition("/")[0] in plan.records and name not in plan.files


def _merged_card(api: HfApi, plan: Push, remote: set[str], revision: str) -> str:
    """The card of the folder, with the configurations that only the repository has."""

    def fetch(name: str) -> str:
        path = api.hf_hub_download(plan.repo_id, name, repo_type=plan.repo_type, revision=revision)
        return Path(path).read_text(encoding="utf-8")

    records = dict(plan.records)
    for name in sorted(remote):
        config, _, file = name.partition("/")
        if file == RECORD_FILE and config not in records:
            try:
                records[config] = BuildRecord.from_json(fetch(name))
            except (ValueError, TypeError) as error:
                logger.warning("%s: %s is not a record of ours (%s); left as it is", plan.repo_id, name, error)
    own = plan.files[CARD].read_text(encoding="utf-8")
    return render_card(records, own, *([fetch(CARD)] if CARD in remote else []))


def _asking(call: Callable[[], Any], plan: Push) -> Any:
    """`call`, with the Hub's refusals and broken connections said in a user's words."""
    try:
        return call()
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        if status == 401:
            message = (
                "the Hub does not accept the token (HF_TOKEN, or the one of `hf auth login`); make a new one at "
                "https://huggingface.co/settings/tokens."
            )
        elif status == 403:
            message = (
                f"the token may not write to {plan.repo_id}; it needs the role 'write', and "
                f"{plan.repo_id.split('/')[0]!r} must be you or an organisation of yours."
            )
        elif status == 412:
            message = f"{plan.repo_id} changed while this was prepared; run the same command again."
        else:
            message = f"the Hub refused to publish {plan.repo_id}."
        raise (ValueError if status < 500 else ConnectionError)(f"{message} It said: {error}") from error
    except _BROKEN as error:
        cause = error.__cause__ or error
        raise ConnectionError(
            f"the connection to the Hub broke ({type(cause).__name__}: {cause}). Nothing was published; run the same "
            "command again, and what the Hub received already is not sent twice."
        ) from error


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
