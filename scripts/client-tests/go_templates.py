"""Published Go templates, filled in by the daemon and by Go: go_templates.py HOST TEMPLATES.json FILLER

TEMPLATES.json lists {"name", "template"}; FILLER is the built scripts/golden/templates.go. Each template becomes a model of its own,
which is asked for its prompts of all the conversations that chat templates are tested with.
"""
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request

HOST, TEMPLATES, FILLER = sys.argv[1:]
MODEL = "of-template"


def post(path, body):
    request = urllib.request.Request(HOST + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        return 200, json.load(urllib.request.urlopen(request, timeout=60))
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def bare_model():
    """The name of a model whose file has no template: the guide, in which the template's key is another word of its length."""
    with open("node/assets/lantern-guide.gguf", "rb") as file:
        data = file.read().replace(b"tokenizer.chat_template", b"tokenizer.none_template")
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    urllib.request.urlopen(urllib.request.Request(f"{HOST}/api/blobs/{digest}", data, method="POST"), timeout=60)
    status, reply = post("/api/create", {"model": "bare", "files": {"bare.gguf": digest}, "stream": False})
    assert status == 200, reply
    return "bare"


def message(given):
    """A message of the conversations as the native API takes it."""
    renamed = {"reasoning_content": "thinking", "name": "tool_name"}
    result = {renamed.get(key, key): value for key, value in given.items()}
    return result | {"content": result["content"] or ""}


def without_thoughts(messages):
    """The messages as templates of the bare model's family get them: what was thought before the last question is gone."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=0)
    said = lambda text: text.split("</think>", 1)[1].lstrip() if text.lstrip().startswith("<think>") and "</think>" in text else text
    return [m | {"content": said(m["content"])} if i < last and m["role"] == "assistant" else m for i, m in enumerate(messages)]


def conversations():
    with open("node/engine/tests/fixtures/templates.json", encoding="utf-8") as file:
        for name, given in json.load(file)["conversations"].items():
            yield name, {"messages": [message(m) for m in given["messages"]], "tools": given.get("tools", [])}
    union = {"type": "function", "function": {"name": "pick", "description": "Pick <one> & more", "parameters": {"type": "object", "required": [],
             "properties": {"which": {"type": ["string", "null"], "enum": ["a", 1, True]}, "one": {"type": ["string"], "description": ""},
             "any": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "all": {"type": "array", "items": {"type": "integer"}}}}}}
    yield "types", {"messages": [{"role": "user", "content": "Pick."}], "tools": [union]}
    yield "documents", {"messages": [{"role": "control", "content": "thinking"}, {"role": "document 1", "content": "It is red."},
                                     {"role": "document 2", "content": "It is blue."}, {"role": "user", "content": "Which colour?"}]}
    yield "cyrillic", {"messages": [{"role": "user", "content": "Привет, как дела сегодня?"}, {"role": "assistant", "content": "Хорошо."},
                                    {"role": "user", "content": "Größe — 12 µm, 日本語で?"}]}
    arguments = {"b": {"d": 1, "c": [2, {"f": 3, "e": None}]}, "a": "<x>"}
    yield "nested_arguments", {"messages": [{"role": "user", "content": "Pick."}, {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "pick", "arguments": arguments}}]}, {"role": "tool", "tool_name": "pick", "content": "ok"}], "tools": [union]}
    yield "late_system", {"messages": [{"role": "user", "content": "One."}, {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Two."}]}


def cases():
    """(what is tested, the case for Go, path and body of the request)"""
    with open(TEMPLATES, encoding="utf-8") as file:
        templates = json.load(file)
    bare = bare_model()
    for entry in templates:
        template = entry["template"]
        status, reply = post("/api/create", {"model": MODEL, "from": bare, "template": template, "stream": False})
        assert status == 200, (entry["name"], reply)
        able = post("/api/show", {"model": MODEL})[1]["capabilities"]
        assert ("tools" in able) == (".Tools" in template), (entry["name"], able)
        for name, given in conversations():
            for think in [None, True, False] if "thinking" in able else [None]:
                what = f"{entry['name']}, {name}, think {think}"
                body = {"model": MODEL, **given} | ({} if think is None else {"think": think})
                # What can think does, unless told not to.
                thinks = think if think is not None or "thinking" not in able else True
                case = {"template": template, "think": thinks, **given, "messages": without_thoughts(given["messages"])}
                yield what, case, "/api/chat", body
        if "insert" in able:
            gap = {"prompt": "def f(", "suffix": "\n    return 1"}
            yield entry["name"] + ", gap", {"template": template, **gap}, "/api/generate", {"model": MODEL, **gap}


# What Go itself cannot fill in: `.Tools` is asked of a message.
GO_FAILS = {f"library/llama4:latest, {name}, think None" for name in ("tools", "tool_call", "nested_arguments")}
n_refused, failed, wrong, equal = 0, set(), [], {}
filler = subprocess.Popen([FILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
for what, case, path, body in cases():
    status, reply = post(path, body | {"_debug_render_only": True, "stream": False, "truncate": False})
    if case.get("tools") and ".Tools" not in case["template"]:
        assert status == 400 and "does not support tools" in reply["error"], (what, reply)
        n_refused += 1
        continue
    filler.stdin.write(json.dumps(case) + "\n")
    filler.stdin.flush()
    expected = json.loads(filler.stdout.readline())
    assert status != 200 or "_debug_info" in reply, (what, reply)
    if "error" in expected:
        failed.add(what)
        continue
    if case.get("think") is False and expected["text"].endswith("<think>\n"):
        # Templates without a switch: Lantern tells the model that it has thought already.
        expected["text"] += "\n</think>\n\n"
    found = {"text": reply["_debug_info"]["rendered_template"]} if status == 200 else {"error": reply["error"]}
    if found == expected:
        equal[what.split(",")[0]] = equal.get(what.split(",")[0], 0) + 1
    else:
        wrong.append((what, expected, found))
for what, expected, found in wrong[:10]:
    parts = [next(iter(given.values())) for given in (expected, found)]
    same = next((i for i, (a, b) in enumerate(zip(*parts)) if a != b), min(map(len, parts)))
    print(f"{what}, at character {same}\n  Go:      {parts[0][same - 40:same + 80]!r}\n  Lantern: {parts[1][same - 40:same + 80]!r}", file=sys.stderr)
print(f"{sum(equal.values())} prompts of {len(equal)} templates as Go writes them, {n_refused} refused for tools the template does not show, "
      f"{len(failed)} that Go cannot fill in, {len(wrong)} others")
names = {entry["name"] for entry in json.load(open(TEMPLATES, encoding="utf-8"))}
assert len(names) > 90 and set(equal) == names, names - set(equal)
assert failed <= GO_FAILS, failed - GO_FAILS
sys.exit(bool(wrong))
