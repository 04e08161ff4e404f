"""The unmodified PyPI `ollama` client against a started daemon: python_client.py http://host:port"""
import asyncio
import sys
import time

import ollama

HOST = sys.argv[1]
client = ollama.Client(host=HOST)
QUESTION = [{"role": "user", "content": "Who are you?"}]
GREEDY = {"temperature": 0, "seed": 1}

models = client.list()
assert [m.model for m in models.models] == ["lantern-guide:latest"], models
assert models.models[0].details.family == "qwen3" and models.models[0].size > 3_000_000 and models.models[0].modified_at.year >= 2026

shown = client.show("lantern-guide")
assert shown.modelinfo["qwen3.context_length"] == 2048 and "completion" in shown.capabilities and shown.template and shown.license

whole = client.chat("lantern-guide", messages=QUESTION, options=GREEDY)
assert "lantern-guide" in whole.message.content and whole.message.role == "assistant" and whole.done and whole.done_reason == "stop", whole
for metric in ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"):
    assert getattr(whole, metric) > 0, metric
streamed = list(client.chat("lantern-guide", messages=QUESTION, options=GREEDY, stream=True))
assert "".join(p.message.content for p in streamed) == whole.message.content and streamed[-1].eval_count == whole.eval_count

turns = QUESTION + [{"role": "assistant", "content": whole.message.content}, {"role": "user", "content": "What is MCP?"}]
assert "Model Context Protocol" in client.chat("lantern-guide", messages=turns, options=GREEDY).message.content

generated = client.generate("lantern-guide", "Who are you?", options=GREEDY)
assert "lantern-guide" in generated.response and generated.context
assert "".join(p.response for p in client.generate("lantern-guide", "Who are you?", options=GREEDY, stream=True)) == generated.response

assert client.ps().models[0].model == "lantern-guide:latest" and client.ps().models[0].context_length == 2048
assert client.generate("lantern-guide", keep_alive=0).done_reason == "unload"
assert client.ps().models == []
assert client.generate("lantern-guide").done_reason == "load"
assert len(client.ps().models) == 1

client.copy("lantern-guide", "second")
assert len(client.list().models) == 2
client.delete("second")
try:
    client.show("second")
    raise SystemExit("a deleted model was shown")
except ollama.ResponseError as error:
    assert error.status_code == 404 and "not found" in error.error

# Cancelling: leaving a stream frees its place for the next request at once. Tokens drawn nearly at random hardly ever end it.
stream = client.generate("lantern-guide", "Hello", raw=True, stream=True, options={"num_predict": 2000, "temperature": 9, "top_k": 0, "top_p": 1})
next(iter(stream))
stream.close()
begun = time.monotonic()
client.chat("lantern-guide", messages=QUESTION, options=GREEDY)
assert time.monotonic() - begun < 5


async def together():
    one = ollama.AsyncClient(host=HOST)
    answers = await asyncio.gather(*(one.chat("lantern-guide", messages=QUESTION, options=GREEDY) for _ in range(8)))
    assert {a.message.content for a in answers} == {whole.message.content}
    text = ""
    async for part in await one.chat("lantern-guide", messages=QUESTION, options=GREEDY, stream=True):
        text += part.message.content
    assert text == whole.message.content


asyncio.run(together())
from importlib.metadata import version
print("python client", version("ollama"), "passed")
