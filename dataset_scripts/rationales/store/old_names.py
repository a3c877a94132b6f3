"""Names that earlier versions wrote into stores. They are read, and no longer written."""

CRASHED = "poison"
CRASHES = "deaths"


def current_status(status: str) -> str:
    """Translate the status of a rationale into its present name."""
    return "crashed" if status == CRASHED else status
