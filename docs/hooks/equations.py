"""Equations of objectives as LaTeX.

An objective writes its equation as text: `-log sigmoid(beta (a_w - a_l)), with a = log pi(y) / |y|`. Words that are no
symbols stay text, between formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

GREEK = frozenset("alpha beta gamma delta eta kappa lambda mu nu phi pi rho tau theta".split())
FUNCTIONS = {"log": r"\log", "exp": r"\exp", "min": r"\min", "max": r"\max", "sum": r"\sum", "sigmoid": r"\sigma"}
NAMED = frozenset("std reg loss score margin max_new_tokens value_clip stop_gradient label_smoothing".split())
"""Words that are symbols in any equation."""
SIGNS = {"+-": r"\pm", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "||": r"\parallel", "|": r"\mid"}
TOKEN = re.compile(
    r"`[^`]+`|log-ratios?|z-score|log_ratio|dpo_d|(?!(?:pi|mean|logits|ref)_)[a-z]{2,}(?:_[a-z]{2,})+|[A-Za-z]+'s\b|"
    r"[A-Za-z]+|\d+(?:\.\d+)?|\+-|<=|>=|!=|\|\||[^\s\w]|_"
)
WORD = re.compile(r"`.*|[A-Za-z]+(?:[-_'][A-Za-z]+)*")
CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Token:
    """A piece of an equation, and whether white space stands on each side of it."""

    text: str
    before: bool
    after: bool


@dataclass
class Item:
    """A part of a formula: its LaTeX, its LaTeX without parentheses around it, and whether it is words."""

    latex: str
    inner: str = ""
    words: bool = False
    operator: bool = False


def to_markdown(equation: str, symbols: Iterable[str] = ()) -> str:
    """Return an equation as text with LaTeX between dollar signs.

    Args:
        equation: The text that an objective declares.
        symbols: Words that are symbols here, such as names of the objective's fields.

    Raises:
        ValueError: If a parenthesis is not closed.
    """
    reader = Reader(equation, frozenset(symbols) | NAMED)
    text, formula = "", list[Item]()
    while reader.here:
        if reader.here.text in ",;:":
            items = [Item(reader.take().text, words=True)]
        else:
            items = reader.sequence(",;:")
        for item in items:
            if item.words:
                text, formula = text + dollars(formula), []
                text += item.latex if item.latex in ",;:" else f" {item.latex}"
            else:
                formula.append(item)
    return (text + dollars(formula)).strip()


def dollars(formula: list[Item]) -> str:
    """Return a formula between dollar signs, or "" for none."""
    return f" ${join(formula)}$" if formula else ""


class Reader:
    """A recursive reader of an equation's tokens."""

    def __init__(self, equation: str, symbols: frozenset[str]) -> None:
        self.tokens = [
            Token(found[0], equation[: found.start()].endswith(" "), equation[found.end() :].startswith(" "))
            for found in TOKEN.finditer(equation)
        ]
        self.equation, self.symbols, self.at, self.depth = equation, symbols, 0, 0

    @property
    def here(self) -> Token | None:
        """The token to be read next, or None at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> Token:
        """Return the next token and go on."""
        token = self.here
        if token is None:
            raise ValueError(f"an equation ends too early: {self.equation}")
        self.at += 1
        return token

    def sequence(self, stop: str) -> list[Item]:
        """Read items up to a stopping sign, which stays, or the end."""
        items: list[Item] = []
        while (token := self.here) and token.text not in stop:
            if token.text == "-" and items and items[-1].latex.startswith((r"\sum", r"\mathrm{mean}")):
                self.take()
                items.append(Item(f"{{- {self.factor().latex}}}"))
            elif token.text == "/" and items and not items[-1].words:
                self.take()
                over, under = items.pop(), self.factor()
                items.append(Item(rf"\frac{{{over.inner or over.latex}}}{{{under.inner or under.latex}}}"))
            elif self.is_words():
                items.append(self.words())
            elif token.text == "|" and not (token.before and token.after):
                items.append(self.factor())
            elif token.text in SIGNS or token.text in "+-=<>,;:.":
                items.append(Item(SIGNS.get(self.take().text, token.text), operator=True))
            else:
                items.append(self.factor())
        return items

    def is_words(self, at: int | None = None) -> bool:
        """Return True if the token is text: a word that is no symbol, or the article."""
        at = self.at if at is None else at
        if at >= len(self.tokens):
            return False
        text, after = self.tokens[at].text, self.tokens[at + 1 : at + 2]
        if not WORD.fullmatch(text) or (after and not after[0].before and after[0].text in "_^'("):
            return False
        if text in ("a", "mean"):
            previous = self.tokens[at - 1].text if at else ""
            return self.is_words(at + 1) or (text == "mean" and previous in ("a", "running", "the"))
        if text in self.symbols:
            return self.is_words(at + 1)
        return len(text) > 1 and text not in GREEK | FUNCTIONS.keys() | {"ref", "log_ratio"}

    def words(self) -> Item:
        """Read the words that follow each other."""
        found = [self.take().text]
        while self.is_words():
            found.append(self.take().text)
        if not self.depth:
            return Item(" ".join(f"`{word}`" if "_" in word else word for word in found), words=True)
        return Item(rf"\text{{ {' '.join(found)} }}")

    def factor(self) -> Item:
        """Read a function with its argument, or an atom with what is attached to it."""
        if self.is_words():
            return self.words()
        token = self.take()
        if token.text in CLOSING:
            return self.attached(self.group(token.text))
        if token.text == "|":
            self.depth += 1
            inner = join(self.sequence("|"))
            self.depth -= 1
            self.take()
            return self.attached(Item(rf"\left|{inner}\right|"))
        if token.text in SIGNS or token.text in "+-":
            return Item(SIGNS.get(token.text, token.text) + self.factor().latex)
        if token.text == "log_ratio":
            return self.log_ratio()
        item = self.attached(Item(self.name(token)), token)
        takes_argument = token.text in FUNCTIONS and token.text not in ("sum", "sigmoid", "min", "max")
        if takes_argument and self.here and self.here.text not in ",;:=)]}+-/|<>" and not self.called:
            return Item(join([item, self.factor()]))
        return item

    def group(self, opening: str) -> Item:
        """Read up to the parenthesis that closes this one."""
        self.depth += 1
        inner = join(self.sequence(CLOSING[opening]))
        self.depth -= 1
        self.take()
        if opening == "{":
            return Item(f"{{{inner}}}", inner)
        return Item(rf"\left{opening}{inner}\right{CLOSING[opening]}", inner)

    def attached(self, item: Item, token: Token | None = None) -> Item:
        """Read subscripts, powers, primes and the parentheses of a call."""
        self.called = False
        latex, below = item.latex, ""
        while (after := self.here) and not after.before and after.text in ("_", "^", "'", "("):
            if after.text == "(" and (token is None or not WORD.fullmatch(token.text)):
                break
            self.take()
            if after.text == "'":
                latex += "'"
            elif after.text == "(":
                latex += self.group("(").latex
                self.called = True
            elif after.text == "_":
                below = self.raised()
                latex = (
                    f"{latex[:-1]},{below}}}" if latex == REF or INDEXED.fullmatch(latex) else f"{latex}_{{{below}}}"
                )
            else:
                latex += f"^{{{self.raised()}}}"
        return Item(latex, item.inner if latex == item.latex else "")

    def raised(self) -> str:
        """Read what a subscript or a power holds: a sign, and an atom with its own subscript."""
        sign = self.take().text if self.here and self.here.text == "-" else ""
        token = self.take()
        if token.text in CLOSING:
            return sign + self.group(token.text).inner
        if token.text == "log_ratio":
            return sign + self.log_ratio().latex
        latex = r"\mathrm{ref}" if token.text == "ref" else self.name(token)
        if (after := self.here) and after.text == "_" and not after.before:
            self.take()
            latex += f"_{{{self.name(self.take())}}}"
        return sign + latex

    def log_ratio(self) -> Item:
        """Read what follows `log_ratio`, and return the logarithm of policy over reference."""
        below = argument = ""
        if (after := self.here) and after.text == "_" and not after.before:
            self.take()
            below = self.name(self.take())
        if (after := self.here) and after.text == "(" and not after.before:
            self.take()
            argument = self.group("(").latex
        over = rf"\pi_{{{below}}}" if below else r"\pi"
        under = rf"\pi_{{\mathrm{{ref}}{',' + below if below else ''}}}"
        return Item(rf"\log \, \frac{{{over}{argument}}}{{{under}{argument}}}")

    def name(self, token: Token) -> str:
        """Return a name or a number as LaTeX, with the number that follows a letter as its index."""
        text = token.text
        if text in FUNCTIONS:
            return FUNCTIONS[text]
        latex = REF if text == "ref" else rf"\{text}" if text in GREEK else text
        if latex == text and len(text) > 1 and not text[0].isdigit():
            escaped = text.replace("_", r"\_")
            called = self.here and self.here.text == "(" and not self.here.before
            latex = rf"\{'operatorname' if called else 'mathrm'}{{{escaped}}}"
        follows = self.here
        if text.isalpha() and follows and follows.text.isdigit() and not follows.before:
            latex += f"_{{{self.take().text}}}"
        return latex


NAME = re.compile(r"\\(mathrm|operatorname|log|exp|min|max)\b")
REF = r"\pi_{\mathrm{ref}}"
INDEXED = re.compile(r"[a-z]_\{\d\}")
"""A letter with a number, such as k1."""


def join(items: Iterable[Item]) -> str:
    """Return items as one formula, with a thin space beside names of several letters."""
    latex, before = "", Item("", operator=True)
    for item in items:
        named = NAME.match(item.latex) or (NAME.match(before.latex) and not item.latex.startswith(r"\left("))
        space = r" \, " if named and not (before.operator or item.operator) else " "
        latex, before = f"{latex}{space}{item.latex}", item
    return latex.strip()
