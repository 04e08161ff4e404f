"""Renders every chat template of the test data with Python's jinja2, set up as transformers sets it up, and stores what the
engine must reproduce: templates.py TEMPLATE_FOLDER OUT.json

The fixture holds the conversations themselves and, for each template, conversation and value of add_generation_prompt,
the SHA-256 of the rendered text, or null where jinja2 raises. With `--show NAME` one template's texts are printed.
"""
import datetime
import hashlib
import json
import sys
from pathlib import Path

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


class Generation(Extension):
    """`{% generation %}` marks assistant text for training; it renders its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    result = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return result


def tool(name, description, properties, required):
    return {"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required}}}


TOOLS = [tool("get_weather", "Get the weather in a city", {"city": {"type": "string", "description": "The city's name"},
              "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit of temperature"}}, ["city"]),
         tool("add", "Add \"two\" numbers <a> & b", {"a": {"type": "number", "description": "First"}, "b": {"type": "integer", "description": "Second", "default": 1}}, ["a", "b"])]


def call(name, arguments, identifier="call00001"):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "You are a careful assistant."}
CONVERSATIONS = {
    "user": {"messages": [user("Hello, who are you?")]},
    "system": {"messages": [SYSTEM, user("Hello!\nSecond line, with \"quotes\", <tags> & ümläuts 🔥.")]},
    "turns": {"messages": [SYSTEM, user("One?"), assistant("1"), user("  Two?  "), assistant("2\n"), user("Three?")]},
    "turns_without_system": {"messages": [user("One?"), assistant("1"), user("Two?")]},
    "answered": {"messages": [user("One?"), assistant("1")]},
    "tools": {"messages": [SYSTEM, user("Weather in Paris?")], "tools": TOOLS},
    "tools_without_system": {"messages": [user("Weather in Paris?")], "tools": TOOLS},
    "tool_call": {"messages": [SYSTEM, user("Weather in Paris?"), assistant("", tool_calls=[call("get_weather", {"city": "Paris", "unit": "celsius"})]),
                               {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"temperature\": 21.5}"}], "tools": TOOLS},
    "tool_round": {"messages": [user("Add 1 and 2, and the weather."), assistant("I will look.", tool_calls=[call("add", {"a": 1, "b": 2.5}), call("get_weather", {"city": "Köln"}, "call00002")]),
                                {"role": "tool", "name": "add", "tool_call_id": "call00001", "content": "3.5"},
                                {"role": "tool", "name": "get_weather", "tool_call_id": "call00002", "content": "rain"},
                                assistant("It is 3.5 and it rains."), user("Thanks.")], "tools": TOOLS},
    "tool_nested": {"messages": [user("Go."), assistant(None, tool_calls=[call("add", {"a": [1, {"x": None, "y": True}], "b": {}})]),
                                 {"role": "tool", "name": "add", "tool_call_id": "call00001", "content": "ok"}], "tools": TOOLS},
    "thinking_content": {"messages": [user("Why?"), assistant("<think>\nBecause I think.\n</think>\n\nBecause."), user("Really?")]},
    "thinking_field": {"messages": [user("Why?"), assistant("Because.", reasoning_content="I think so."), user("Really?"), assistant("Yes.", reasoning_content="Still so.")]},
    "thinking_off": {"messages": [user("Why?")], "enable_thinking": False},
    "thinking_on": {"messages": [SYSTEM, user("Why?")], "enable_thinking": True},
    "two_users": {"messages": [user("One."), user("Two.")]},
    "assistant_first": {"messages": [assistant("Hi."), user("Hello.")]},
    "empty_content": {"messages": [user("")]},
}


def cases(source):
    template = None
    for name, conversation in CONVERSATIONS.items():
        for generate in (False, True):
            try:
                template = template or environment().from_string(source)
                context = {"tools": None, "bos_token": "<BOS>", "eos_token": "<EOS>", "add_generation_prompt": generate, **json.loads(json.dumps(conversation))}
                yield name, generate, template.render(**context)
            except Exception as error:  # What jinja2 raises is many types, among them TypeError and KeyError.
                yield name, generate, error


def main():
    folder = Path(sys.argv[1])
    if sys.argv[2] == "--show":
        for name, generate, text in cases((folder / f"{sys.argv[3]}.jinja").read_text()):
            print(f"=== {name} {generate}\n{text}" if isinstance(text, str) else f"=== {name} {generate} RAISES {text!r}")
        return
    expected = {}
    for path in sorted(folder.glob("*.jinja")):
        rows = cases(path.read_text())
        expected[path.stem] = {f"{name}/{str(generate).lower()}": hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) else None for name, generate, text in rows}
    fixture = {"now": NOW.isoformat(), "conversations": CONVERSATIONS, "expected": expected}
    Path(sys.argv[2]).write_text(json.dumps(fixture, indent=1, ensure_ascii=False) + "\n")
    raised = sum(v is None for rows in expected.values() for v in rows.values())
    print(f"{len(expected)} templates, {sum(map(len, expected.values()))} cases, {raised} of them raise")


main()
