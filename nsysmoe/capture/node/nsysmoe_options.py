"""Which options this vLLM takes, out of its sources: importing it takes long and a GPU's driver.

Run by the interpreter that has vLLM, it prints one line of JSON: option to the values that it may
have, or null where any of its type may stand. ``eplb_config.use_async`` is a key of an option.
"""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path

# Options that are objects, and the classes of their keys.
_OBJECTS = {"eplb_config": "EPLBConfig", "profiler_config": "ProfilerConfig"}


def options_of(folder: Path) -> dict[str, list[object] | None]:
    """Return the options of the vLLM in a folder.

    Raises:
        OSError: It has no ``engine/arg_utils.py``.
        SyntaxError: That is not Python that this interpreter reads.
        KeyError: That defines no ``EngineArgs``.
    """
    arguments = _parsed(folder / "engine" / "arg_utils.py")
    configs = [_parsed(path) for path in sorted((folder / "config").glob("*.py"))]
    literals = _literals(configs)
    classes = {
        one.name: one
        for module in [*configs, arguments]
        for one in module.body
        if isinstance(one, ast.ClassDef)
    }
    found = _fields(classes["EngineArgs"], literals)
    for option, name in _OBJECTS.items():
        if option in found and name in classes:
            keys = _fields(classes[name], literals)
            found.update({f"{option}.{key}": values for key, values in keys.items()})
    return {**_of_library(folder), **found}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _of_library(folder: Path) -> dict[str, list[object] | None]:
    """Return the arguments of ``vllm.LLM`` itself: it takes some that no engine does."""
    path = folder / "entrypoints" / "llm.py"
    if not path.is_file():
        return {}
    methods = [
        method
        for one in _parsed(path).body
        if isinstance(one, ast.ClassDef) and one.name == "LLM"
        for method in one.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
    ]
    names = [arg.arg for one in methods for arg in (*one.args.args[1:], *one.args.kwonlyargs)]
    return dict.fromkeys(names)


def _literals(modules: list[ast.Module]) -> dict[str, list[object]]:
    """Return the names that stand for ``Literal[…]``, with what it lists."""
    found = {}
    for module in modules:
        for one in module.body:
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
                values = _listed(one.value, {})
                if values is not None:
                    found[one.targets[0].id] = values
    return found


def _fields(one: ast.ClassDef, literals: dict[str, list[object]]) -> dict[str, list[object] | None]:
    return {
        field.target.id: _listed(field.annotation, literals)
        for field in one.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _listed(node: ast.expr, literals: dict[str, list[object]]) -> list[object] | None:
    """Return what a type lists, ``X | None`` as X; None where it lists nothing."""
    if isinstance(node, ast.Name):
        return literals.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
        return _listed(node.left, literals)
    is_literal = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
    if not is_literal or node.value.id != "Literal":  # type: ignore[attr-defined]
        return None
    try:
        # One value, or several.
        values = ast.literal_eval(node.slice)  # type: ignore[attr-defined]
    except ValueError:
        return None
    return list(values) if isinstance(values, tuple) else [values]


if __name__ == "__main__":
    where = find_spec("vllm")
    if where is not None and where.submodule_search_locations:
        known = options_of(Path(where.submodule_search_locations[0]))
        print(json.dumps(known, sort_keys=True))  # noqa: T201
