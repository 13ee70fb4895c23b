"""A card as a fragment of HTML that needs nothing else, for notebooks and pages of one's own."""

from __future__ import annotations

from html import escape

import numpy as np
from PIL import Image

from fgvce_jax.display.card import Card, answer
from fgvce_jax.pictures import BLUE, ORANGE, data_uri, overlay, patch

_SIDE = 168  # of the three pictures at the top, in CSS pixels
_CROP = 72  # of an edit's two
_MOST_EDITS = 24
_PLOT = (200, 132)


def card_html(card: Card) -> str:
    """The image, both maps, the edits as pairs of crops, and the curves of P and Q.

    Colours are set with the background, so that it reads the same on a dark page.
    """
    p, q = escape(card.predicted), escape(card.target)
    image = data_uri(Image.fromarray(card.image))
    same = card.predicted == card.target
    figures = [_figure(_framed(card, image), "the image" if same else "replaced cells, in order")]
    if not same:
        figures += [
            _figure(_overlaid(card, image, "invariant"), f"evidence for {p}", ORANGE),
            _figure(_overlaid(card, image, "dominant"), f"deciding for {q}", BLUE),
            _figure(_curves(card), "probability after each edit"),
        ]
    edits = [_edit(card, k) for k in range(min(len(card.edits), _MOST_EDITS))]
    if len(card.edits) > _MOST_EDITS:
        edits.append(f"<p>... and {len(card.edits) - _MOST_EDITS} more edits</p>")
    lines = _answer(card).splitlines()
    text = "<br>".join(escape(line) for line in (lines if same else lines[1:]))
    title = f'Predicted <span style="color:{ORANGE}">{p}</span>'
    if not same:
        title += f', not <span style="color:{BLUE}">{q}</span>'
    return (
        '<div class="fgvce-card" style="background:#fff;color:#222;font:13px/1.4 sans-serif;'
        'padding:12px;max-width:860px">'
        f'<div style="font-size:17px;font-weight:bold">{title}</div><p>{text}</p>'
        f"{_row(figures)}{_row(edits)}</div>"
    )


def card_page(cards: dict[str, Card]) -> str:
    """A page of cards, by their headings."""
    parts = (f"<h2>{escape(name)}</h2>{card_html(card)}" for name, card in cards.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>fgvce why</title>'
        '<body style="background:#fff;color:#222;font-family:sans-serif;margin:24px">'
        f"{''.join(parts)}</body></html>\n"
    )


def _answer(card: Card) -> str:
    cells = [edit.cell for edit in card.edits]
    numbers = card.p_predicted, card.p_target, cells, card.n, card.flipped
    return answer(card.predicted, card.target, *numbers)


def _row(items: list[str]) -> str:
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:12px;margin-top:10px">{"".join(items)}</div>'
    )


def _figure(content: str, caption: str, color: str = "#222") -> str:
    return (
        f'<figure style="margin:0;width:{_SIDE + 34}px">{content}'
        f'<figcaption style="color:{color}">{caption}</figcaption></figure>'
    )


def _square(inside: str) -> str:
    return f'<div style="position:relative;width:{_SIDE}px;height:{_SIDE}px">{inside}</div>'


def _img(source: str, side: int, alt: str) -> str:
    style = f"width:{side}px;height:{side}px;display:block;position:absolute;top:0;left:0"
    return f'<img src="{source}" alt="{alt}" style="{style}">'


def _overlaid(card: Card, image: str, name: str) -> str:
    layer = data_uri(overlay(getattr(card, name), name))
    return _square(_img(image, _SIDE, "the image") + _img(layer, _SIDE, f"{name} map"))


def _framed(card: Card, image: str) -> str:
    """The image, its replaced cells framed and numbered."""
    side, frames = _SIDE / card.n, ""
    for number, edit in enumerate(card.edits, 1):
        row, column = divmod(edit.cell, card.n)
        frames += (
            f'<div style="position:absolute;left:{column * side:.1f}px;top:{row * side:.1f}px;'
            f"width:{side:.1f}px;height:{side:.1f}px;box-sizing:border-box;"
            f"border:2px solid {ORANGE};color:#fff;font:bold 11px sans-serif;text-align:center;"
            f'text-shadow:0 0 2px #000">{number}</div>'
        )
    return _square(_img(image, _SIDE, "the image") + frames)


def _edit(card: Card, k: int) -> str:
    """An edit: the window of the replaced cell beside that of its replacement."""
    edit = card.edits[k]
    crops = _crop(card.image, edit.cell, card.n, ORANGE, "the replaced cell")
    if edit.reference is not None:
        crops += _crop(edit.reference, edit.candidate_cell, card.n, BLUE, "its replacement")
    p = f"{card.p_target[k + 1]:.2f}"
    return (
        f'<figure style="margin:0"><div style="display:flex;gap:2px">{crops}</div>'
        f"<figcaption>{k + 1} &middot; similarity {edit.similarity:.2f}, "
        f'<span style="color:{BLUE}">{p}</span></figcaption></figure>'
    )


def _crop(image: np.ndarray, cell: int, n: int, color: str, alt: str) -> str:
    source = data_uri(patch(image, cell, n))
    style = f"width:{_CROP}px;height:{_CROP}px;border:2px solid {color}"
    return f'<img src="{source}" alt="{alt}" style="{style}">'


def _curves(card: Card) -> str:
    """The probabilities of P and Q as an SVG picture, from 0 at the bottom to 1."""
    width, height = _PLOT
    lines = "".join(
        f'<text x="0" y="{14 + height * (1 - p) + 4}" fill="#666" font-size="10">{p}</text>'
        for p in (0, 1)
    )
    higher = ORANGE if card.p_predicted[-1] > card.p_target[-1] else BLUE
    for values, color in ((card.p_predicted, ORANGE), (card.p_target, BLUE)):
        step = width / max(len(values) - 1, 1)
        points = [(12 + step * k, 14 + height * (1 - p)) for k, p in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines += f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        for x, y in points:
            lines += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>'
        x, y = points[-1]
        y += -5 if color == higher else 14
        text = f'x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="11" text-anchor="end"'
        lines += f"<text {text}>{values[-1]:.2f}</text>"
    frame = f'<path d="M12 14V{14 + height}H{12 + width}" fill="none" stroke="#999"/>'
    return (
        f'<svg width="{width + 20}" height="{height + 22}" role="img" '
        f'aria-label="probabilities of both classes after each edit">{frame}{lines}</svg>'
    )
