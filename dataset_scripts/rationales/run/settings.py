"""Settings of a run. They do not change the questions to the model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        concurrency: maximum number of requests in flight per engine. Reduced while an engine is overloaded.
        max_attempts: requests for one answer when failures are retryable.
        max_re_asks: how often an answer that the gate rejects is requested again.
        outage_wait: seconds without an answer after which a run gives up on a crashed server.
        retry_failed: request again what failed in earlier runs.
        failed_in_a_row: after this many posts in a row without an accepted answer the run stops and records none of
            them, because the cause is probably the server, the model or the prompt.
        preparation_threads: threads that decode, scale and encode images.
    """

    concurrency: int = 64
    max_attempts: int = 5
    max_re_asks: int = 2
    outage_wait: float = 1800.0
    retry_failed: bool = False
    failed_in_a_row: int = 20
    preparation_threads: int = 4

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "failed_in_a_row", "preparation_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}.")
        for name in ("max_re_asks", "outage_wait"):
            if not getattr(self, name) >= 0:  # also nan
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)!r}.")


DEFAULTS = RunSettings()
