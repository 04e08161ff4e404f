"""The guide's chat template as training and measuring use it."""
import json
from pathlib import Path

from jinja2 import Environment


def _template():
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False)
    return environment.from_string((Path(__file__).parent / "template.jinja").read_text().rstrip("\n"))


_TEMPLATE = _template()


def render(messages, tools, add_generation_prompt=False):
    """The text of a conversation."""
    return _TEMPLATE.render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)
