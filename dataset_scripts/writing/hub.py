"""Push of a dataset, a model or rationales to the Hub, by a plan that can be shown first."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.utils.py_utils import size_str
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from dataset_scripts.rationales.store.store import is_store
from dataset_scripts.writing.card import render_card
from dataset_scripts.writing.card_edits import CARD, Card, read_card
from dataset_scripts.writing.rationales import save_rationales
from dataset_scripts.writing.record import RECORD_FILE, BuildRecord, read_records

logger = logging.getLogger(__name__)

# The client raises errors of its HTTP library, which depends on its version, or RuntimeError from them.
_CONNECTION_ERRORS = (*HfHubHTTPError.__bases__, RuntimeError)
# The working directory in the code of a card; after a push it is the repository.
_WORKING_DIRECTORY = (
    (re.compile(r'(?<=^name = )"\."  # in this folder$', re.MULTILINE), '"{}"'),
    (re.compile(r"\bos\.getcwd\(\)"), '"{}"'),
    (re.compile(r"(?<=^```python\n)import os\n\n", re.MULTILINE), ""),
)
MODEL_CONFIGS = ("config.json", "adapter_config.json")
# Files of a training run that only its own machine needs, or that contain local paths.
NOT_SENT = (
    "*checkpoint-*/* runs/* distillation/* training_args.bin optimizer.* scheduler.* rng_state* trainer_state.json "
    "settings.json metrics.json *predictions.parquet *.log *__pycache__/* .* */.*"
).split()


@dataclasses.dataclass(frozen=True)
class PushPlan:
    """Files of a push and their repository."""

    folder: Path
    repo_id: str
    repo_type: str  # "dataset" or "model"
    title: str  # kind of the content, for messages
    private: bool
    files: dict[str, Path]  # path in the repository -> local file
    not_sent: list[str]
    records: dict[str, BuildRecord]  # configurations of a dataset, by name
    replace_card: bool = False  # whether the card on the Hub is replaced, with all that was written there

    def describe(self) -> str:
        """List the calls of `push` and the files."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        repository = f"{self.repo_id!r}, repo_type={self.repo_type!r}"
        lines = [
            f"{self.folder} is a {self.title}.",
            f"HfApi().create_repo({repository}, private={self.private}, exist_ok=True)",
            f"HfApi().create_commit({repository}, operations=…)"
            f"  # {len(sizes)} files, {size_str(sum(sizes.values()))}; the Hub receives only those that changed",
            *(f"  {name}  {size_str(size)}" for name, size in sizes.items()),
            *(f"  deletes other files in {name}/; other configurations are kept" for name in self.records),
        ]
        if self.not_sent:
            lines.append(f"Not sent: {', '.join(self.not_sent)}")
        titles = [r.facts.title for r in self.records.values() if r.with_content and r.facts.own_terms]
        if titles:
            lines.append(
                f"This publishes texts and images of {', '.join(dict.fromkeys(titles))}. Make sure that the terms of "
                "the original allow it; --without_content builds ids, labels and rationales only."
            )
        return "\n".join(lines)


def plan_push(folder: str | Path, repo_id: str, private: bool = False, *, replace_card: bool = False) -> PushPlan:
    """Determine the type of a folder and its files for the Hub, without network.

    The rationales of a store are written to its folder `published` first.

    Raises:
        ValueError: a bad repository id, or a folder that is no complete dataset, model or store of rationales.
    """
    folder = Path(folder)
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"`repo_id` must be OWNER/NAME (OWNER: your user name or organization), got {repo_id!r}.")
    validate_repo_id(repo_id)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the output folder of build-dataset or train.")
    repo_type, title = "dataset", "dataset"
    if is_store(folder):
        folder, title = save_rationales(folder), "table of rationales"
    local = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    records = read_records(folder)
    if title != "dataset":
        names = list(filter_repo_objects(local, ignore_patterns=NOT_SENT))
    elif records:
        names = _dataset_files(folder, records)
    elif any(name in local for name in MODEL_CONFIGS):
        repo_type = title = "model"
        names = list(filter_repo_objects(local, ignore_patterns=NOT_SENT))
        if not any(name.endswith((".safetensors", ".bin")) for name in names):
            raise ValueError(f"{folder} has a configuration but no weights; did the training finish?")
    else:
        inner = sorted(str(file.parent) for file in folder.glob("*/config.json"))
        raise ValueError(
            f"{folder} is neither a dataset (a folder with {RECORD_FILE} per configuration, from build-dataset) nor a "
            "model (config.json, from train) nor a store of rationales."
            + (f" Did you mean {inner[0]!r}?" if inner else "")
        )
    read_card(folder)  # a damaged card is found before anything is sent
    not_sent = sorted({_top_folder(name, names) for name in local.keys() - set(names)})
    files = {name: folder / name for name in names}
    return PushPlan(folder, repo_id, repo_type, title, private, files, not_sent, records, replace_card)


def difference(plan: PushPlan, token: str | None = None) -> str:
    """Show how a push would change the card on the Hub, and the files it would delete.

    Nothing is sent. Without a connection, without the repository or without access to it, the result states that.
    """
    api = HfApi(token=token)
    try:
        with _explained_errors(plan):
            try:
                info = api.repo_info(plan.repo_id, repo_type=plan.repo_type)
            except RepositoryNotFoundError:  # also of a private one, without a token that can read it
                return f"{plan.repo_id} is not on the Hub yet, or cannot be read without another token."
            remote = {sibling.rfilename for sibling in info.siblings or []}
            if CARD not in remote or CARD not in plan.files:
                return f"No card to compare with on {plan.repo_id}."
            earlier = _download(api, plan, CARD, info.sha)
            merged = _merged_card(api, plan, remote, info.sha)
    except (ValueError, OSError) as error:
        return f"Not compared with the Hub: {str(error).splitlines()[0]}"
    lines = difflib.unified_diff(
        earlier.splitlines(), merged.splitlines(), f"{CARD} on the Hub", f"{CARD} as sent", lineterm="", n=1
    )
    changes = list(lines) or [f"The card on the Hub ({CARD}) stays as it is."]
    return "\n".join([*changes, *(f"deletes {name}" for name in _stale_files(plan, remote))])


def push(plan: PushPlan, token: str | None = None) -> str:
    """Send the files of `plan` in one commit and return the address of the repository.

    The Hub does not receive files again that it has, also when a push is repeated after a broken connection. Other
    configurations of a dataset repository are kept, with their entries on the card.

    Raises:
        ValueError: no token, a refused token, or a public repository instead of a private one.
        ConnectionError: the upload stopped.
    """
    if token is None and get_token() is None:
        raise ValueError(
            "No token of the Hugging Face Hub was found. Run `hf auth login`, or set the environment variable "
            "HF_TOKEN to a token that can write (https://huggingface.co/settings/tokens)."
        )
    api = HfApi(token=token)
    with _explained_errors(plan):
        api.whoami()
        url = api.create_repo(plan.repo_id, repo_type=plan.repo_type, private=plan.private, exist_ok=True)
        info = api.repo_info(plan.repo_id, repo_type=plan.repo_type)
        if plan.private and not info.private:
            raise ValueError(
                f"{plan.repo_id} exists already and is public; nothing was sent. Make it private "
                f"(`hf repos settings {plan.repo_id} --type {plan.repo_type} --private`), or use another name."
            )
        remote = {sibling.rfilename for sibling in info.siblings or []}
        contents: dict[str, Any] = dict(plan.files)
        if CARD in contents:
            contents[CARD] = _merged_card(api, plan, remote, info.sha).encode()
        stale = _stale_files(plan, remote)
        commit = api.create_commit(
            plan.repo_id,
            [CommitOperationAdd(name, content) for name, content in contents.items()]
            + [CommitOperationDelete(name) for name in stale],
            commit_message=f"Upload {', '.join(plan.records) or plan.folder.resolve().name}",
            repo_type=plan.repo_type,
            parent_commit=info.sha,  # the merged card is based on this commit; another push in between is refused
        )
    if commit.oid == info.sha:
        logger.info("%s is up to date: nothing was sent", plan.repo_id)
    return str(url)


def _dataset_files(folder: Path, records: dict[str, BuildRecord]) -> list[str]:
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} has no {CARD}, which load_dataset needs. Build it again.")
    names = [CARD]
    for config, record in records.items():
        names.append(f"{config}/{RECORD_FILE}")
        for files in record.files.values():
            for name, size in files.items():
                path = folder / config / name
                if not path.is_file() or path.stat().st_size != size:
                    raise ValueError(f"{path} is missing or has changed. Build {config!r} again.")
                names.append(f"{config}/{name}")
    return names


def _top_folder(name: str, sent: list[str]) -> str:
    """Return the top folder of a file if nothing in that folder is sent, else the file."""
    top, slash, _ = name.partition("/")
    return name if not slash or any(other.startswith(f"{top}/") for other in sent) else f"{top}/"


def _stale_files(plan: PushPlan, remote: set[str]) -> list[str]:
    """List remote files in the folders of pushed configurations that are no longer part of them."""
    return [name for name in sorted(remote - set(plan.files)) if name.partition("/")[0] in plan.records]


def _download(api: HfApi, plan: PushPlan, name: str, revision: str) -> str:
    path = api.hf_hub_download(plan.repo_id, name, repo_type=plan.repo_type, revision=revision)
    return Path(path).read_text(encoding="utf-8")


def _merged_card(api: HfApi, plan: PushPlan, remote: set[str], revision: str) -> str:
    """Render the card of the folder, with what the repository alone has.

    These are configurations of a dataset, and the text and fields that a person wrote on the Hub.
    """
    local = read_card(plan.folder) or Card({})
    if plan.records:
        card = render_card(plan.records | _other_records(api, plan, remote, revision), plan.repo_id).keep_edits(local)
    else:
        description = local.description
        for pattern, replacement in _WORKING_DIRECTORY:
            description = pattern.sub(replacement.format(plan.repo_id), description)
        card = dataclasses.replace(local, description=description)
    if CARD not in remote or plan.replace_card:
        return card.render()
    earlier = Card.parse(_download(api, plan, CARD, revision), f"{plan.repo_id}/{CARD}")
    if local.has_own_text and earlier.has_own_text and (local.before, local.after) != (earlier.before, earlier.after):
        logger.warning(
            "%s: text of your own on its card differs from that in %s. The text on the Hub is kept; edit it there, or "
            "send the card of the folder with --replace_card (replace_card=True in Python).",
            plan.repo_id,
            plan.folder / CARD,
        )
    return card.keep_edits(earlier).render()


def _other_records(api: HfApi, plan: PushPlan, remote: set[str], revision: str) -> dict[str, BuildRecord]:
    """Read the records of configurations that only the repository has."""
    records = {}
    for name in sorted(remote):
        config, _, file = name.partition("/")
        if file == RECORD_FILE and config not in plan.records:
            try:
                records[config] = BuildRecord.from_json(_download(api, plan, name, revision))
            except (ValueError, TypeError) as error:
                logger.warning("%s: %s is not a build record (%s); it is kept unchanged", plan.repo_id, name, error)
    return records


@contextmanager
def _explained_errors(plan: PushPlan) -> Iterator[None]:
    """Raise refusals as ValueError, server and connection errors as ConnectionError."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        owner = plan.repo_id.partition("/")[0]
        message = {
            401: "The Hub does not accept the token (HF_TOKEN, or that of `hf auth login`). Create a new one at "
            "https://huggingface.co/settings/tokens.",
            403: f"The token cannot write to {plan.repo_id}. It needs the role 'write', and {owner!r} must be your "
            "user name or organization.",
            412: f"{plan.repo_id} has changed since this push began. Repeat the command.",
        }.get(status, f"The Hub refused to publish {plan.repo_id}.")
        raise (ValueError if status < 500 else ConnectionError)(f"{message} Its answer: {error}") from error
    except _CONNECTION_ERRORS as error:
        cause = error.__cause__ or error
        raise ConnectionError(
            f"The connection to the Hub broke ({type(cause).__name__}: {cause}). Nothing was published. Repeat the "
            "command to resume; files that the Hub has received are not sent again."
        ) from error
