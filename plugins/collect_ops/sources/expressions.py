"""JMESPath expressions of a declaration: compiled, and applied within bounds. Pure.

A short expression can multiply what it is given: `[@,@][] | [@,@][] | …` doubles it with every stage, and so does text
that is joined to itself. So the work of a search is counted where it can grow (loops, flattening, text that is made),
and one that exceeds its budget ends as a failure. What only goes down into a document (`data.items[0]`) cannot multiply
anything, and is not counted.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from functools import lru_cache
from math import prod
from typing import Any, Final, TypeAlias

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options, TreeInterpreter, _Expression

from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.sources.declaration import Json

# What jmespath's parser makes: dicts with type, value and children.
Node: TypeAlias = Any

#: Work on one document: elements that were looped over or made, each for every `_NODES_A_STEP` nodes of the expression.
#: A page of a million records takes one or two million.
PAGE_WORK: Final = 10_000_000
#: Work on one record, for one column.
RECORD_WORK: Final = 2_000_000
#: Work on all records of a page, for all columns: `PAGE_WORK`, and so much more for each record.
STEPS_A_RECORD: Final = 200
_NODES_A_STEP = 16
#: Characters of a result that cost as much as one step; where text is made, each character is one.
_CHARS_A_STEP = 16
#: Searches that may take longer than about 10 ms, estimated: the documents' bytes, times the copies made of them, times
#: the expression's parts of `_CHARS_A_PART`; a path that only goes down costs so much a document.
LONG_EFFORT: Final = 256_000
_PATH_EFFORT = 64
_CHARS_A_PART = 16
#: What is declared: characters of an expression, levels of nesting in it, how many times a value may be in its result.
MAX_CHARS: Final = 1000
MAX_DEPTH: Final = 40
MAX_COPIES: Final = 1000
#: Up to so many times what the document holds, a result is not looked through.
_FEW_COPIES = 64

_ENDLESS = 1e30
#: Functions whose result holds all of their arguments; that of the others holds the first at most.
_JOINING = frozenset({"join", "merge", "not_null"})
#: Functions that give a number, or its text, that is not one of the document's as it stands.
_CALCULATING = frozenset({"abs", "avg", "ceil", "floor", "sum", "to_number", "to_string"})
_PATHS = frozenset({"field", "subexpression", "index_expression", "index", "current", "identity", "literal"})
# What jmespath lets through of Python's own: a slice of step 0, contains('abc', `1`), an order of text and number,
# to_number('1e999'), a number of thousands of digits as text.
_FAILURES = (JMESPathError, ValueError, TypeError, OverflowError, RecursionError, AttributeError)


class ExpressionFails(ValueError):
    """An expression cannot be applied to a document; says why."""


class PageWork(threading.local):
    """What the searches in the records of one page may cost together: the budget that they share.

    Each thread has its own: a page is searched by one of them.
    """

    def __init__(self) -> None:
        self.renew(0)

    def renew(self, records: int) -> None:
        """Begin a page of so many records."""
        self._budget = self._left = PAGE_WORK + STEPS_A_RECORD * records

    def spend(self, steps: int) -> None:
        """Pay, or fail."""
        self._left -= steps
        if self._left < 0:
            raise ExpressionFails(f"the records of its page take more than {self._budget:,} steps together")


class Expression:
    """A compiled expression.

    Args:
        text: JMESPath.
        work: What one search may cost.
        shared: A budget that other searches spend from as well.
        parsed: A part of it that is searched for instead of all of it.
        exact: Whether a number that is found keeps its digits; else it is the nearest double, as paging reads it.

    Raises:
        ValueError: It is none.
    """

    __slots__ = ("_copies", "_exact", "_parsed", "_plain", "_shared", "_weight", "_work", "text")

    def __init__(
        self,
        text: str,
        *,
        work: int = PAGE_WORK,
        shared: PageWork | None = None,
        parsed: Node | None = None,
        exact: bool = False,
    ) -> None:
        self.text = text
        self._exact = exact
        self._shared = shared
        self._parsed = _parsed(text) if parsed is None else parsed
        types = [node["type"] for node, _ in _nodes(self._parsed)]
        self._plain = _PATHS.issuperset(types)
        self._weight = 1 + len(types) // _NODES_A_STEP
        self._copies = _copies_or_endless(self._parsed)
        self._work = work

    def effort(self, size_bytes: int, documents: int = 1) -> float:
        """What searches may take, to be compared with `LONG_EFFORT`.

        Args:
            size_bytes: Of all documents together, as JSON.
            documents: How many there are.
        """
        parts = 0 if self._plain else 1 + len(self.text) // _CHARS_A_PART
        return documents * _PATH_EFFORT + size_bytes * self._copies * parts

    def search(self, document: Json) -> Json:
        """What the expression finds.

        Raises:
            ExpressionFails: It cannot be applied to this document, or makes far more of it than it holds.
        """
        meter = _Meter(self._work, self._weight, self._shared)
        interpreter = TreeInterpreter() if self._plain else _Counting(meter)
        try:
            found = interpreter.visit(self._parsed, document)
            if self._copies > _FEW_COPIES:
                # A part that is in the result twice is written twice.
                meter.spend_on(found)
        except _FAILURES as error:
            raise ExpressionFails(_said(error)) from error
        if isinstance(found, _Expression):
            raise ExpressionFails("it gives an expression (&…), not a value")
        return float(found) if type(found) is SpelledNumber and not self._exact else found


def keeps_count(text: str) -> bool:
    """Whether the list that an expression finds is a list of the document as it stands: no element more or less.

    What only goes down to a list keeps it, and so does what orders it or puts one in its place; filters, flattening and
    slices do not. `list[*].field` keeps it as long as every element has the field: see `projected_list`.
    """
    parsed = _parsed(text)
    return not _changes_count(_projected(parsed) or parsed)


@lru_cache(maxsize=512)
def projected_list(text: str) -> Expression | None:
    """The list of which `list[*].field` takes a field of each element, leaving out those without; None for others."""
    projected = _projected(_parsed(text))
    return None if projected is None else Expression(text, parsed=projected)


def _projected(node: Node) -> Node | None:
    kind, children = node["type"], node["children"]
    if kind in ("projection", "value_projection") and not _changes_nothing(children[1]):
        return children[0]
    if kind == "subexpression" and (within := _projected(children[1])) is not None:
        return {**node, "children": [children[0], within]}
    return None


def _changes_nothing(node: Node) -> bool:
    return node["type"] in ("identity", "current")


_LESS_OR_MORE = frozenset({"filter_projection", "flatten", "slice"})


def _changes_count(node: Node) -> bool:
    kind, children = node["type"], node["children"]
    if kind in _LESS_OR_MORE:
        return True
    if kind in ("projection", "value_projection"):
        base, each = children
        return not _changes_nothing(each) or _changes_count(base)
    if kind in ("pipe", "subexpression", "index_expression"):
        first, then = children
        # Of a list from which one element is taken, the others do not matter.
        return _changes_count(then) or (not _takes_one(then) and _changes_count(first))
    if kind in ("or_expression", "and_expression", "function_expression"):
        return any(map(_changes_count, children))
    return False


def _takes_one(node: Node) -> bool:
    while node["type"] in ("subexpression", "index_expression", "pipe"):
        first, then = node["children"]
        node = then if _changes_nothing(first) else first
    return bool(node["type"] == "index")


@lru_cache(maxsize=512)
def compiled(text: str) -> Expression:
    """An expression for pages, compiled once.

    Raises:
        ValueError: It is none.
    """
    return Expression(text)


def expression_problem(text: str) -> str | None:
    """Why a text is not a JMESPath expression."""
    try:
        _parsed(text)
    except ValueError as error:
        return f"is not a JMESPath expression: {error}"
    return None


def unbounded_problem(text: str) -> str | None:
    """Why an expression is not taken from a declaration, although it is one: its size, or what it would multiply."""
    if len(text) > MAX_CHARS:
        return f"must have at most {MAX_CHARS} characters, has {len(text)}"
    try:
        parsed = _parsed(text)
    except ValueError:
        return None  # `expression_problem` says so
    depth = max(level for _, level in _nodes(parsed))
    if depth > MAX_DEPTH:
        return f"must nest at most {MAX_DEPTH} levels, nests {depth}"
    if _is_misplaced_reference(parsed):
        return "holds a & outside of a function's arguments: what it gives is no value"
    copies = _copies(parsed)
    if copies > MAX_COPIES:
        return f"may multiply what it is given by {copies:.3g}: at most {MAX_COPIES} is taken"
    return None


def calculating_functions(text: str) -> list[str]:
    """The functions of an expression that calculate with numbers, as doubles: what they give has 15 to 17 digits."""
    names = [node["value"] for node, _ in _nodes(_parsed(text)) if node["type"] == "function_expression"]
    return sorted(_CALCULATING.intersection(names))


def _parsed(text: str) -> Node:
    try:
        parsed: Node = jmespath.compile(text).parsed
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except _FAILURES as error:
        raise ValueError(_said(error)) from error
    return parsed


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}…"


def _children(node: Node) -> Iterator[Node]:
    # The children of a slice are numbers.
    return (child for child in node["children"] if isinstance(child, Mapping))


def _nodes(root: Node) -> Iterator[tuple[Node, int]]:
    """Every node and its level."""
    waiting = [(root, 1)]
    while waiting:
        node, level = waiting.pop()
        yield node, level
        waiting.extend((child, level + 1) for child in _children(node))


def _is_misplaced_reference(root: Node) -> bool:
    return root["type"] == "expref" or any(
        child["type"] == "expref" and node["type"] != "function_expression"
        for node, _ in _nodes(root)
        for child in _children(node)
    )


def _copies(node: Node) -> float:
    """How many times a part of the document may be in what the node gives, at most.

    Alternatives that begin with different fields take different parts; all others may take the same.
    """
    children = list(_children(node))
    match node["type"]:
        case "multi_select_list" | "multi_select_dict":
            return _together(children)
        case "function_expression" if node["value"] in _JOINING:
            return _together(children)
        case "function_expression" if node["value"] != "map":
            return _copies(children[0]) if children else 1.0
        case "or_expression" | "and_expression":
            return max(map(_copies, children))
        case "filter_projection":
            children = children[:2]  # the condition decides, and is in nothing that is given
        case "comparator" | "not_expression" | "literal":
            return 1.0
    return min(prod(map(_copies, children)), _ENDLESS)


def _copies_or_endless(root: Node) -> float:
    """The same; what nests too deeply to be judged may multiply anything."""
    try:
        return _copies(root)
    except RecursionError:
        return _ENDLESS


def _together(children: Iterable[Node]) -> float:
    """The same of what stands side by side in the result."""
    fields: dict[str, float] = {}
    whole = 0.0
    for child in children:
        field = _first_field(child)
        if field is not None:
            fields[field] = fields.get(field, 0.0) + _copies(child)
        elif not _is_literal(child):
            whole += _copies(child)
    return max(1.0, whole + max(fields.values(), default=0.0))


def _is_literal(node: Node) -> bool:
    while node["type"] == "key_val_pair":
        node = node["children"][0]
    return bool(node["type"] == "literal")


def _first_field(node: Node) -> str | None:
    """The field of the document that is all a node looks at, None when it may look at any."""
    while node["type"] in (
        "subexpression",
        "index_expression",
        "projection",
        "key_val_pair",
        "flatten",
        "pipe",
    ):
        node = node["children"][0]
    return node["value"] if node["type"] == "field" else None


# What is not paid for by being counted: all but numbers, true, false and null.
_COSTLY = (list, dict, str)


class _Meter:
    """Counts down what is left of a budget.

    Args:
        budget: Steps.
        weight: Steps that an element of a loop costs.
        shared: What is paid from as well.
    """

    __slots__ = ("_budget", "_left", "_shared", "_weight")

    def __init__(self, budget: int, weight: int, shared: PageWork | None = None) -> None:
        self._shared = shared
        self._budget = budget
        self._left = budget
        self._weight = weight

    def spend(self, steps: int) -> None:
        """Pay, or fail."""
        self._left -= steps
        if self._left < 0:
            raise ExpressionFails(f"it takes more than {self._budget:,} steps")
        if self._shared is not None:
            self._shared.spend(steps)

    def spend_on_loop(self, elements: Sized) -> None:
        """Pay for applying a part of the expression to every element."""
        self.spend(len(elements) * self._weight)

    def spend_on(self, value: Json, *, chars_a_step: int = _CHARS_A_STEP) -> None:
        """Pay for all that is in a value, as often as it is in it."""
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, list | dict):
                self.spend(1 + len(value))
                parts = value.values() if isinstance(value, dict) else value
                waiting.extend(each for each in parts if isinstance(each, _COSTLY))
            elif isinstance(value, str):
                self.spend(1 + len(value) // chars_a_step)


class _Functions(functions.Functions):
    """JMESPath's functions; those that make something large, or look at all of it, are paid for first."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def call_function(self, function_name: str, resolved_args: Iterable[Json]) -> Json:
        """Call one of them."""
        resolved_args = list(resolved_args)
        if function_name in ("to_string", "contains"):
            for value in resolved_args:
                self._meter.spend_on(value, chars_a_step=1)
        elif function_name == "join":
            self._pay_for_joining(*resolved_args[:2])
        else:
            for value in resolved_args:
                if isinstance(value, list | dict):
                    self._meter.spend_on_loop(value)
        return super().call_function(function_name, resolved_args)

    def _pay_for_joining(self, separator: Json = None, parts: Json = None) -> None:
        if isinstance(separator, str) and isinstance(parts, list):
            self._meter.spend_on(parts, chars_a_step=1)
            self._meter.spend(len(separator) * len(parts))


def _is_true(value: Json) -> bool:
    """As jmespath has it: 0 is true."""
    return value not in ("", [], {}, None) and value is not False


class _Counting(TreeInterpreter):
    """jmespath's interpreter, within a budget: its loops are jmespath's own, counted."""

    def __init__(self, meter: _Meter) -> None:
        super().__init__(Options(custom_functions=_Functions(meter)))
        self._meter = meter

    def visit_projection(self, node: Node, value: Json) -> Json:
        base = self.visit(node["children"][0], value)
        return self._each(node["children"][1], base) if isinstance(base, list) else None

    def visit_value_projection(self, node: Node, value: Json) -> Json:
        base = self.visit(node["children"][0], value)
        return self._each(node["children"][1], base.values()) if isinstance(base, dict) else None

    def visit_filter_projection(self, node: Node, value: Json) -> Json:
        base, given, condition = node["children"]
        elements = self.visit(base, value)
        if not isinstance(elements, list):
            return None
        self._meter.spend_on_loop(elements)
        return self._each(given, [each for each in elements if _is_true(self.visit(condition, each))])

    def _each(self, node: Node, elements: Collection[Json]) -> list[Json]:
        self._meter.spend_on_loop(elements)
        found = [self.visit(node, each) for each in elements]
        return [each for each in found if each is not None]

    def visit_flatten(self, node: Node, value: Json) -> Json:
        merged = super().visit_flatten(node, value)
        if merged is not None:
            self._meter.spend(len(merged))
        return merged

    def visit_slice(self, node: Node, value: Json) -> Json:
        if isinstance(value, list):
            self._meter.spend(len(value))
        return super().visit_slice(node, value)

    def visit_comparator(self, node: Node, value: Json) -> Json:
        if node["value"] not in ("eq", "ne"):
            return super().visit_comparator(node, value)
        left, right = (self.visit(child, value) for child in node["children"])
        if isinstance(left, list | dict) and isinstance(right, list | dict):
            # Two values that were made apart are compared part by part.
            self._meter.spend_on(left)
            self._meter.spend_on(right)
        return self.COMPARATOR_FUNC[node["value"]](left, right)
