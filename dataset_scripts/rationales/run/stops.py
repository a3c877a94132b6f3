"""Failures of posts, and the error that ends a run in which everything fails."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PreparationError,
    RetryableError,
)

# These belong to the post if the server has answered others. 403 is also the answer of a moderation or a firewall.
_OF_THE_POST = {400, 401, 403, 404, 405, 422}
_REQUEST_TOO_LARGE = 413
_EXAMPLE_LENGTH = 160


@dataclasses.dataclass(frozen=True)
class Failure:
    """Reason why a post has no accepted answer.

    Attributes:
        post_id: the post.
        error: the error of the engine; `None` if the gate rejected all answers.
        codes: hard codes of the gate.
        words: the rejected answer, or the text of the error.
        size: bytes of the image that was sent.
        has_image: whether an image was sent.
    """

    post_id: str
    error: EngineError | None
    codes: tuple[str, ...] = ()
    words: str = ""
    size: int = 0
    has_image: bool = False

    @property
    def reason(self) -> str:
        """Key that is equal for failures of the same sort."""
        return f"gate ({', '.join(self.codes)})" if self.error is None else self.error.reason

    @property
    def example(self) -> str:
        """Name the post, with its words."""
        words = " ".join(self.words.split())
        if len(words) > _EXAMPLE_LENGTH:
            words = f"{words[:_EXAMPLE_LENGTH]}…"
        name = f"post {self.post_id!r}"
        return words if words.startswith(name) else f"{name}: {words}"  # as in the text of a PreparationError

    def is_refuted_by(self, size: int, has_image: bool) -> bool:
        """Tell whether an accepted answer shows that the cause is this post and not the server.

        An answer to a text says nothing about images, and one to a small image nothing about large ones.

        Args:
            size, has_image: those of the post with the accepted answer.
        """
        if self.error is not None and self.error.status == _REQUEST_TOO_LARGE:
            return size >= self.size
        return has_image or not self.has_image


def may_be_the_posts(error: MisconfiguredError, answers: int) -> bool:
    """Tell whether an error that usually concerns every request may concern one post only.

    Args:
        error: the error.
        answers: answers of this server so far.
    """
    return error.status in _OF_THE_POST and (answers > 0 or error.status == 403)


def stop_error(failures: Sequence[Failure], *, in_a_row: bool) -> EngineError:
    """Describe why a run ends in which everything fails.

    Args:
        failures: failures of posts.
        in_a_row: whether `failed_in_a_row` posts failed, otherwise all posts of a short run.

    Returns:
        `OutageError` if the same run may succeed later, else `MisconfiguredError`.
    """
    ((reason, count),) = collections.Counter(failure.reason for failure in failures).most_common(1)
    failure = next(failure for failure in failures if failure.reason == reason)
    error = failure.error
    share = f" ({count} of {len(failures)})" if count < len(failures) else ""
    posts = f"{len(failures):,} posts in a row" if in_a_row else "All posts of this run"
    message = (
        f"{posts} failed, and none of these failures was recorded: {reason}{share}, e.g. "
        f"{failure.example.rstrip('.')}. {_advice(failure)}"
    )
    if in_a_row:
        message += " If the posts are at fault, raise --failed_in_a_row."
    kind = OutageError if isinstance(error, RetryableError) else MisconfiguredError
    return kind(message, status=error and error.status, reason=reason)


def _advice(failure: Failure) -> str:
    error = failure.error
    if error is None:
        return "Try another --model, or another prompt, in another folder."
    if error.status == _REQUEST_TOO_LARGE:
        return "Use a lower --max_pixels in another folder, or raise the limit of the server or its proxy."
    if isinstance(error, PreparationError):
        return "Check the images of the dataset."
    if isinstance(error, RetryableError):
        return "Run the same command again later."
    return "Correct the cause and run the same command again."
