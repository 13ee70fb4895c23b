"""The page put together: template, style, script and data as one HTML file.

The script is written as modules, one concept each, under `page/script`. They are joined into one
classic script, each module in a function of its own: a page opened from the disk may not load
modules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import jinja2

PAGE = Path(__file__).with_name("page")

_IMPORT = re.compile(r'^import \{(.*?)\} from "\./(\w+)\.js";\n', re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const) (\w+))", re.MULTILINE)


@cache
def script(entry: str) -> str:
    """A module and all that it needs as one script, those that others import from first."""
    sources, needs, wanted = {}, {}, [entry]
    while wanted:
        if (name := wanted.pop()) not in sources:
            sources[name] = (PAGE / "script" / f"{name}.js").read_text("utf-8")
            needs[name] = [of for _, of in _IMPORT.findall(sources[name])]
            wanted += needs[name]
    order = TopologicalSorter(needs).static_order()
    joined = "\n".join(_module(name, sources[name]) for name in order)
    return f'"use strict";\nconst modules = {{}};\n{joined}'


def _module(name: str, source: str) -> str:
    """A module as a function that is called once and returns what it exports."""
    exported = ", ".join(_EXPORT.findall(source))
    body = _IMPORT.sub(r"const {\1} = modules.\2;\n", source)
    return f"modules.{name} = (() => {{\n{_EXPORT.sub('', body)}return {{{exported}}};\n}})();\n"


def content_policy(script: str, folder: bool) -> str:
    """The page's Content-Security-Policy: its one script, its styles and embedded pictures.

    Nothing is fetched or sent, and no other script runs, whatever an image's name holds; of a
    report in a folder the script may load the chunks of data. Styles are inline, as charts carry
    theirs in attributes.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    chunks = " 'strict-dynamic'" if folder else ""
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'{chunks}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def as_json(value: Any) -> str:
    """A value as JSON that may stand in a script element: nothing in it ends one or begins one."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escapes = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return re.sub("[<\u2028\u2029]", lambda found: escapes[found[0]], text)


def page(
    name: str, variables: Mapping[str, Any], blocks: Iterable[tuple[str, str]], folder: bool = False
) -> Any:
    """A page, "report" or "compare", as a stream of text.

    Args:
        name: Of its template and, but for the report's (main), of its script.
        variables: Of the template.
        blocks: (id, JSON) of its data blocks, in order; they are asked for as they are written.
        folder: Whether its script loads further data from a folder.
    """
    joined = script({"report": "main"}.get(name, name))
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(f"{name}.html.j2")
    style = (PAGE / "style.css").read_text("utf-8")
    policy = content_policy(joined, folder)
    stream = template.stream(**variables, blocks=blocks, policy=policy, style=style, script=joined)
    stream.enable_buffering(100)
    return stream
