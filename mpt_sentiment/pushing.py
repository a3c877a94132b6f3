"""Publishing of a dataset folder or a trained model on the Hugging Face Hub."""

from pathlib import Path

from dataset_scripts.writing.hub import plan_push, push


def push_to_hub(
    folder: str | Path, repo_id: str, *, private: bool = False, dry_run: bool = False, token: str | None = None
) -> str:
    """Push the output folder of `build_dataset` or `train` to the Hub, in one commit.

    A repeated call resumes a broken upload and sends only files that have changed.

    Args:
        folder (`str` or `Path`): dataset folder or model folder.
        repo_id (`str`): `OWNER/NAME`; created if it does not exist.
        private (`bool`, defaults to `False`): require a private repository.
        dry_run (`bool`, defaults to `False`): send nothing, and return the description of the push.
        token (`str`, *optional*): access token; defaults to that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The address of the repository, or with `dry_run` the calls and files of the push.

    Raises:
        ValueError: a folder that cannot be published, no token, a refused token, or a public repository.
        ConnectionError: the upload stopped.
    """
    plan = plan_push(folder, repo_id, private)
    return plan.describe() if dry_run else push(plan, token)
