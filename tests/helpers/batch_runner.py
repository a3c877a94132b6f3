"""Batch service without a network: answers files of requests as OpenAI and vLLM do."""

import json

from helpers.faulty_server import answer


def run_batch(file, output, errors=None, *, respond=lambda body: (200, answer(body)), model="m"):
    """Answer each request of a file, in reverse order, since a batch keeps none.

    Args:
        file: requests.
        output: file of the answers.
        errors: file of the failed requests, as OpenAI writes it; by default they are in `output`, as vLLM does.
        respond: returns status and body for the body of a request; status `None` is a request that has expired.

    Returns:
        The requests.
    """
    requests = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines = {True: [], False: []}
    for number, request in enumerate(reversed(requests)):
        assert request["method"] == "POST" and request["url"] == "/v1/chat/completions"
        assert request["body"]["model"] == model
        status, body = respond(request["body"])
        error = response = None
        if status is None:
            error = {"code": "batch_expired", "message": "This request could not be executed in time."}
        else:
            response = {"status_code": status, "request_id": f"req-{number}", "body": body}
            if errors is None and status >= 400:
                response, error = response | {"body": None}, body
        line = {"id": f"b-{number}", "custom_id": request["custom_id"], "response": response, "error": error}
        lines[status == 200].append(json.dumps(line) + "\n")
    output.write_text("".join(lines[True] if errors else lines[True] + lines[False]), encoding="utf-8")
    if errors:
        errors.write_text("".join(lines[False]), encoding="utf-8")
    return requests
