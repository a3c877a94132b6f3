"""Jobs in forks of this process, which may kill themselves."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

_write = os.write  # jobs may replace it


def in_fork(job: Callable[[], Any]) -> tuple[int, Any]:
    """Return the exit status of a job (-9 if killed), and its result, None without one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _write(writer, json.dumps(job()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as output:
        result = json.loads(output.read() or "null")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), result
