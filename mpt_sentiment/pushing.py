"""Publishing of a dataset, a trained model or rationales on the Hugging Face Hub."""

from pathlib import Path

from dataset_scripts.writing.hub import difference, plan_push, push


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    replace_card: bool = False,
    token: str | None = None,
) -> str:
    """Push a dataset, a trained model or rationales to the Hub, in one commit.

    A repeated call resumes a broken upload and sends only files that have changed. Text and fields that a person wrote
    on the card are kept, in the folder and on the Hub.

    Args:
        folder (`str` or `Path`): dataset folder, model folder, or store of rationales.
        repo_id (`str`): `OWNER/NAME`; created if it does not exist.
        private (`bool`, defaults to `False`): require a private repository.
        dry_run (`bool`, defaults to `False`):
            Send nothing, and return the description of the push, with the changes of the card on the Hub.
        replace_card (`bool`, defaults to `False`): replace the card on the Hub with that of the folder.
        token (`str`, *optional*): access token; defaults to that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The address of the repository, or with `dry_run` the calls and files of the push.

    Raises:
        ValueError: a folder that cannot be published, no token, a refused token, or a public repository.
        ConnectionError: the upload stopped.
    """
    plan = plan_push(folder, repo_id, private, replace_card=replace_card)
    return f"{plan.describe()}\n{difference(plan, token)}" if dry_run else push(plan, token)
