"""Reading YAML strictly. Pure.

A subset that means what it looks like: no tags, no anchors, no duplicate keys; and texts stay texts:
`2026-01-31`, `12:30:45`, `no` and `007` are not turned into something else, as YAML 1.1 would.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from collect_ops.kernel.errors import Fault

#: A file of this size is read, or has all its faults named, in one to two seconds; dag-processors read every file.
MAX_BYTES = 256 * 1024
#: Levels of nesting. What reads a declaration later (pydantic, orjson, JSONB) has limits of its own, all above this.
MAX_DEPTH = 100
#: What neither PostgreSQL nor UTF-8 can hold.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class _TooDeep(Exception):
    """Nested deeper than `MAX_DEPTH`."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, less what surprises; notes duplicate keys and what cannot be stored as faults."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[Fault] = []
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not read: write it out", problem_mark=event.start_mark
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not read", problem_mark=event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeep
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode):
            self._check_text(node)
        return node

    def _check_text(self, node: yaml.ScalarNode) -> None:
        if _UNSTORABLE.search(node.value) is None:
            return
        # JSON is YAML, and escapes what lies beyond 16 bits as a pair: one character.
        paired = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if paired.count("\ufffd") > node.value.count("\ufffd") or "\0" in paired:
            problem = "must not hold NUL characters or lone surrogates: they cannot be stored"
            self.faults.append(Fault(field=_place(node.start_mark), value=None, problem=problem))
        node.value = paired.replace("\0", "\ufffd")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:  # noqa: ARG002, FBT001, FBT002
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"is given twice, in lines {seen[key.value]} and {line}"
                self.faults.append(Fault(field=f"line {line}, {key.value}", value=None, problem=problem))
            seen[key.value] = line
        # Keys are texts: the names of fields, query parameters and headers, whatever they look like.
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _construct_map(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _construct_int(_: _StrictLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _construct_float(_: _StrictLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _construct_map)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)
# A number with leading zeros stays text: it is a postal code or an identifier.
_RESOLVERS = {
    "null": (r"(?:~|null|)", ["~", "n", ""]),
    "bool": (r"(?:true|false)", ["t", "f"]),
    "int": (r"[-+]?(?:0|[1-9][0-9]{0,4000})", list("-+0123456789")),
    "float": (
        r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)",
        list("-+0123456789"),
    ),
}
for _tag, (_pattern, _first) in _RESOLVERS.items():
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^{_pattern}$"), _first)


def read_yaml(content: bytes) -> tuple[Any, list[Fault]]:
    """What a YAML text says.

    Args:
        content: The file's bytes.

    Returns:
        The value, None when it cannot be read; and what is wrong with the text.
    """
    if len(content) > MAX_BYTES:
        return None, [
            Fault(field="file", value=len(content), problem=f"must have at most {MAX_BYTES:,} bytes")
        ]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [Fault(field=f"byte {error.start}", value=None, problem="must be UTF-8")]
    try:
        loader = _StrictLoader(text)
    except yaml.YAMLError as error:
        return None, [Fault(field="file", value=None, problem=" ".join(str(error).split()))]
    return _loaded(loader)


def _loaded(loader: _StrictLoader) -> tuple[Any, list[Fault]]:
    try:
        return loader.get_single_data(), loader.faults
    except yaml.MarkedYAMLError as error:
        return None, [_marked(error)]
    except yaml.YAMLError as error:
        return None, [Fault(field="file", value=None, problem=" ".join(str(error).split()))]
    except (_TooDeep, RecursionError):
        problem = f"is nested too deeply: {MAX_DEPTH} levels at most"
        return None, [Fault(field="file", value=None, problem=problem)]
    except (ValueError, OverflowError):
        # PyYAML looks at neither the escapes that it makes characters of (\UFFFFFFFF) nor the length of a version.
        mark = loader.get_mark()
        return None, [
            Fault(field=_place(mark), value=None, problem="holds an escape or a number out of range")
        ]


def _marked(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark else "file"
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return Fault(field=place, value=None, problem=f"is not YAML: {problem}")


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
