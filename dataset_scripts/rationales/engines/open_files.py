"""Limit of open files, which requests in flight use up."""

from dataset_scripts.reading.option_names import field

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

# Shards, images, libraries and the connections of health checks.
_OTHER_FILES = 128


def ensure_open_files(concurrency: int, servers: int) -> None:
    """Raise the limit of open files of this process until every request has a connection.

    Args:
        concurrency: requests in flight per server.
        servers: number of servers.

    Raises:
        ValueError: the system does not allow so many.
    """
    if resource is None or not servers:
        return
    needed = concurrency * servers + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        possible = max(1, (hard - _OTHER_FILES) // servers)
        raise ValueError(
            f"{concurrency * servers:,} requests in flight need {needed:,} open files, but only {hard:,} are allowed. "
            f"Use {field('concurrency', possible)}, or raise the limit before the command: ulimit -n {needed}."
        ) from None
