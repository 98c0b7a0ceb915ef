"""Answers that are not what they should be: lists that lie, and shapes that no client expects."""

from typing import Any

import msgspec

from worker.sandbox.faults import Faults, Shape
from worker.sandbox.gate import Answer
from worker.sandbox.shapes import Json

HTML = b"<!doctype html><title>Whop</title><h1>One moment please</h1>"


def distorted(operation: str, page: Json, faults: Faults) -> Json:
    """Return a list's page with what the faults make of it: no rows, or a cursor that repeats."""
    if faults.empty(operation):
        info = dict.fromkeys(("start_cursor", "end_cursor"))
        page = {
            "data": [],
            "page_info": info | {"has_next_page": False, "has_previous_page": False},
        }
    if operation in faults.endless_lists:
        info = page["page_info"]
        cursor = info["end_cursor"] or "WzFd"
        page = page | {"page_info": info | {"has_next_page": True, "end_cursor": cursor}}
    return page


def misshapen(answer: Answer, shape: Shape) -> Answer:
    """Return an answer in a shape that says nothing of use."""
    match shape.kind:
        case "html":
            return Answer(200, HTML)
        case "empty":
            return Answer(200, b"")
        case "list":
            return Answer(200, b"[1, 2, 3]")
        case "null_error":
            return Answer(200, b'{"error": null}')
        case "missing" | "wrong_type":
            return Answer(200, msgspec.json.encode(_without(answer, shape)))


def _without(answer: Answer, shape: Shape) -> Any:
    whole = msgspec.json.decode(answer.body)
    rows = whole.get("data") if isinstance(whole, dict) else None
    target = rows[0] if isinstance(rows, list) and rows else whole
    if isinstance(target, dict) and shape.field in target:
        wrong = "odd" if isinstance(target[shape.field], int | float | dict | list) else 7
        target[shape.field] = wrong
        if shape.kind == "missing":
            del target[shape.field]
    return whole
