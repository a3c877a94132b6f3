"""Metrics of a server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts and durations of one server.

    Args:
        in_work: returns the number of posts in work.
    """

    def __init__(self, in_work: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mpt_requests", "Requests for predictions by HTTP status.", ["status"], registry=self.registry
        )
        self.predictions = Counter("mpt_predictions", "Posts by predicted label.", ["label"], registry=self.registry)
        self.refused_posts = Counter(
            "mpt_refused_posts", "Posts without a result by HTTP status.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "mpt_request_seconds", "Seconds from request to answer.", buckets=SECONDS, registry=self.registry
        )
        self.batch_sizes = Histogram(
            "mpt_batch_size", "Posts per forward pass.", buckets=[2**n for n in range(9)], registry=self.registry
        )
        self.queue = Gauge("mpt_queue_posts", "Posts in work.", registry=self.registry)
        self.queue.set_function(in_work)
