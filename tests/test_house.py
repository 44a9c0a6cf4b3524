"""The house: who may reach into a model's layers."""

import ast
from pathlib import Path

import loratelier

# Whoever calls one of these looks into a model or hooks itself to it.
_REACHING = {
    "get_submodule", "set_submodule", "named_modules", "modules", "named_children", "children",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_module_forward_hook",
    "register_module_forward_pre_hook", "register_parametrization", "get_input_embeddings",
    "get_output_embeddings", "get_decoder",
}  # fmt: skip
_INSIDES = {"_modules", "_parameters", "_forward_hooks", "_forward_pre_hooks"}
# The base knows what a model is made of, the bank is the one runtime over it.
_MAY = {"base", "bank"}


def _reach(node):
    """The name of what a piece of code reaches into a model with; None if it does not."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr if node.func.attr in _REACHING else None
    inside = isinstance(node, ast.Attribute) and node.attr in _INSIDES
    return node.attr if inside else None


def test_nothing_but_base_and_bank_reaches_into_the_layers_of_a_model():
    root = Path(loratelier.__file__).parent
    reaching, allowed = [], 0
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = _reach(node)
            if name and room in _MAY:
                allowed += 1
            elif name:
                reaching.append(f"{path.relative_to(root)}:{node.lineno} {name}")
    assert reaching == []
    assert allowed > 10  # the search finds what it looks for
