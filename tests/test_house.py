"""The arrows of the house: who may import whom, and where arq is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("webhooks/**/*.py"), *ROOT.glob("worker/**/*.py")])
SHARED = {"webhooks.events", "webhooks.inbox", "webhooks.log", "webhooks.durability"}
"""What the worker may use of the receiver's package: the inbox, and two of a process's edges."""


RECEIVER = {"webhooks.app", "webhooks.signature", "webhooks.settings"}
"""What a simulation runs besides."""


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, at its top or anywhere within."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [one for one in below if _is_module(one)] or [node.module]


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def allowed(importer: str, imported: str) -> bool:
    top = imported.partition(".")[0]
    if importer.startswith("webhooks"):
        return top != "worker"
    if importer.startswith("worker.policy"):
        ours = top != "worker" or imported.startswith("worker.policy")
        return ours and top not in {"webhooks", "redis", "httpx", "arq", "asyncio", "msgspec"}
    if importer.startswith("worker.sandbox"):
        return top != "webhooks" and (top != "worker" or imported.startswith("worker.sandbox"))
    if importer.startswith("worker.whop"):
        return (
            imported == "webhooks.events"
            or top not in {"webhooks", "worker"}
            or (imported.startswith("worker.whop"))
        )
    whole = {"worker.cli": {"webhooks.main"}, "worker.simulate": RECEIVER}
    more = next((also for name, also in whole.items() if importer.startswith(name)), set())
    return top != "webhooks" or imported in SHARED | more


@pytest.mark.parametrize("path", FILES, ids=module)
def test_the_arrows_point_the_right_way(path):
    wrong = [one for one in imports(path) if not allowed(module(path), one)]
    assert wrong == []


def test_policy_has_nothing_to_await():
    for path in ROOT.glob("worker/policy/*.py"):
        kinds = (ast.AsyncFunctionDef, ast.Await)
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]


def test_arq_is_imported_in_one_place():
    users = [module(p) for p in FILES if any(i.partition(".")[0] == "arq" for i in imports(p))]
    assert users == ["worker.main"]


def test_nothing_is_pickled():
    assert not [p for p in FILES if any(i in {"pickle", "shelve"} for i in imports(p))]
