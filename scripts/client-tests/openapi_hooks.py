"""The check of schemathesis that scripts/openapi runs: an answer of 500 and above is a fault, except those the Ollama dialect
words itself (docs/api.md), an account that is not there, a full queue, and a registry that cannot be reached."""
import schemathesis

WORDED = ('option \\"', 'option "', "invalid format: ", "does not exist", "is only supported for F16")


@schemathesis.check
def no_fault(ctx, response, case):
    if response.status_code >= 500 and response.status_code not in (502, 503):
        assert any(text in response.text for text in WORDED), f"{response.status_code}: {response.text[:300]}"
    assert "/tmp/" not in response.text and "panicked" not in response.text, response.text[:300]


@schemathesis.hook
def map_body(context, body):
    """Names the model that is there in every second request, and asks for short answers, so that answers are computed too."""
    if isinstance(body, dict) and len(repr(body)) % 2 == 0:
        body["model"] = "lantern-guide"
        for short in ("max_tokens", "max_output_tokens"):
            body.setdefault(short, 4)
        if body.get("options") in (None, {}):
            body["options"] = {"num_predict": 4}
    return body
