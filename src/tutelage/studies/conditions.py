"""A small language for conditions on measured numbers: `gold.change < 0 and not (kl.last > 2)`. Nothing is evaluated
as Python.

    or_     = and_ ("or" and_)*          compare = sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)?
    and_    = not_ ("and" not_)*         sum     = product (("+" | "-") product)*
    not_    = "not" not_ | compare       product = unit (("*" | "/") unit)*
    unit    = number | name | "(" or_ ")" | "-" unit
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping

from tutelage.errors import UserError, did_you_mean

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:e-?\d+)?)|(?P<name>[A-Za-z_][\w.-]*\w|[A-Za-z_])|(?P<sign><=|>=|==|!=|[-+*/<>()]))"
)
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
WORDS = ("and", "or", "not")
Values = Mapping[str, float | bool | None]


class Unknown(Exception):
    """A number that this run does not have: what depends on it is neither true nor false."""


def holds(text: str, values: Values, where: str = "condition") -> bool | None:
    """Whether a condition is true; None where a number in it was not measured."""
    parser = _Parser(text, values, where)
    try:
        return bool(parser.whole())
    except Unknown:
        return None


def names_in(text: str) -> set[str]:
    return {m["name"] for m in TOKEN.finditer(text) if m["name"]} - {*WORDS}


def check(text: str, known: set[str], where: str) -> None:
    """A UserError for a condition that cannot be read, or that names what nothing measures."""
    for name in sorted(names_in(text)):
        if name not in known:
            near = did_you_mean(name, sorted(known))
            raise UserError(
                f"names {name!r}, which nothing measures{near}", where=where, mend=f"use: {', '.join(sorted(known))}"
            )
    holds(text, dict.fromkeys(known, 1.0), where)


def _tokens(text: str, where: str) -> Iterator[tuple[str, str]]:
    place = 0
    while text[place:].strip():
        found = TOKEN.match(text, place)
        if found is None:
            raise UserError(
                f"cannot be read at {text[place:].strip()[:12]!r}", where=where, mend="compare names and numbers"
            )
        place = found.end()
        yield str(found.lastgroup), str(found[found.lastgroup])  # type: ignore[index]


class _Parser:
    def __init__(self, text: str, values: Values, where: str):
        self.text, self.values, self.where = text, values, where
        self.tokens = list(_tokens(text, where))
        self.at = 0

    def whole(self) -> float | bool:
        value = self.either()
        if self.at < len(self.tokens):
            raise self.fault()
        return value

    def fault(self) -> UserError:
        rest = " ".join(token for _, token in self.tokens[self.at :]) or "its end"
        return UserError(
            f"{self.text!r} cannot be read at {rest!r}", where=self.where, mend="see studies/conditions.py"
        )

    def take(self, *words: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at][1] in words:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def either(self) -> float | bool:
        value = self.both()
        while self.take("or"):
            other = self.both()
            value = bool(value) or bool(other)
        return value

    def both(self) -> float | bool:
        value = self.opposite()
        while self.take("and"):
            other = self.opposite()
            value = bool(value) and bool(other)
        return value

    def opposite(self) -> float | bool:
        return not self.opposite() if self.take("not") else self.compare()

    def compare(self) -> float | bool:
        left = self.sum()
        sign = self.take(*COMPARE)
        return left if sign is None else COMPARE[sign](left, self.sum())

    def sum(self) -> float:
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> float:
        value = self.unit()
        while sign := self.take("*", "/"):
            other = self.unit()
            if sign == "/" and other == 0:
                raise Unknown
            value = value * other if sign == "*" else value / other
        return value

    def unit(self) -> float:
        if self.take("-"):
            return -self.unit()
        if self.take("("):
            value = self.either()
            if not self.take(")"):
                raise self.fault()
            return value
        if self.at >= len(self.tokens) or self.tokens[self.at][0] == "sign" or self.tokens[self.at][1] in WORDS:
            raise self.fault()
        kind, token = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return float(token)
        known = self.values.get(token)
        if known is None:
            raise Unknown
        return known
