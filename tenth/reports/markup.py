"""HTML that is escaped unless it says otherwise.

Why: the page shows text that a model wrote. `Html` marks what is markup; every other string is escaped the
moment it becomes a child or an attribute, so forgetting to escape is not possible, only forgetting to mark.
Not here: what the page says (sections.py).
"""

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "hr", "img", "meta"})


class Html(str):
    """Text that is markup already and may be inserted as it is."""

    __slots__ = ()


def escape(text: object) -> Html:
    """`text` as markup that shows exactly that text."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name ...>children</name>`; `class_` is written class, a None child or attribute is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Pieces one after the other, escaped where they are not markup."""
    return Html("".join(escape(part) for part in parts if part is not None))


def table(head: Iterable[object], rows: Iterable[Iterable[object]], *, class_: str | None = None) -> Html:
    """A table whose first column names the row."""
    header = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = []
    for row in rows:
        first, *rest = row
        body.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest)))
    whole = element("table", element("thead", header), element("tbody", *body), class_=class_)
    return element("div", whole, class_="scroll")
