"""The function component of a kernel's name.

A kernel is classified by the name of its function, never by a piece of text somewhere in its
template arguments or parameters: ``my_nccl_tests_helper`` is not NCCL, and a kernel that takes
an ``ncclComm`` is not a collective.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLOSERS = {")": "(", "]": "[", "}": "{"}
# Ten times what CUTLASS needs: a hostile name must not cost time that grows with its square.
_LONGEST_NAME = 65_536
_ANONYMOUS = "(anonymous namespace)"
# Triton up to 2.1 appends what it specialised on: fused_moe_kernel_0d1d2d3c4de5.
_TRITON_SPECIALISATION = re.compile(r"_0(?=[0-9cde]*[cd])[0-9cde]+$")
_IDENTIFIER = re.compile(r"[A-Za-z_$~][\w$]*")
_MANGLED_PIECE = re.compile(r"(\d+)")
# ncclDevKernel_AllReduce_Sum_bf16_RING_LL, ncclKernel_AllReduce_RING_LL_Sum_float,
# ncclAllReduceRingLLKernel_sum_f32: reduction and type stand together in each generation.
_REDUCTION = re.compile(
    r"_(sum|prod|minmax|min|max|avg|premulsum|sumpostdiv)_+([a-z0-9]+(?:_bfloat16)?)"
)
# NCCL reduces signed and unsigned integers with one kernel and names it by the latter.
_DATA_TYPES = {
    "float": "f32",
    "half": "f16",
    "double": "f64",
    "nv_bfloat16": "bf16",
    **{f"{sign}int{bits}": f"u{bits}" for sign in ("", "u") for bits in (8, 32, 64)},
    **{f"i{bits}": f"u{bits}" for bits in (8, 32, 64)},
}


@dataclass(frozen=True)
class Function:
    """A kernel's name taken apart.

    Attributes:
        name: Last identifier, e.g. ``topkGating``.
        scope: Namespaces and classes before it without template arguments, e.g. ``vllm::moe``.
        template: Text of the function's own template arguments, without the outer brackets.
    """

    name: str
    scope: str = ""
    template: str = ""


def parse_function(kernel_name: str) -> Function:
    """Take a demangled (or Itanium-mangled) kernel name apart.

    The name is read from its end, since what stands before a function (return types such as
    ``std::enable_if<T2>(int)0&&x, void>::type``) is printed by nsys with brackets that do not
    balance. A text that is no C++ name comes back whole as ``name``.
    """
    if len(kernel_name) > _LONGEST_NAME:
        return Function(kernel_name)
    text = _without_clone(kernel_name.strip())
    if text.startswith("_Z"):
        return _parse_mangled(text)
    text = text.replace(_ANONYMOUS, "<unnamed>").removesuffix(" const").rstrip()
    if text.endswith(")"):
        text = text[: _open_of(text, len(text) - 1)].rstrip()
    template = ""
    if text.endswith(">"):
        start = _open_of(text, len(text) - 1)
        text, template = text[:start].rstrip(), text[start + 1 : -1]
    text, name = _split_identifier(text)
    before, scope = _split_scope(text)
    # Only a return type may stand before a name: anything else is no C++ name at all.
    if not name or (before and before[-1] not in " *&"):
        return Function(kernel_name)
    return Function(_TRITON_SPECIALISATION.sub("", name), scope, template)


def parse_reduction(function_name: str) -> tuple[str | None, str | None]:
    """Return the reduction and the element type that a collective's function name tells.

    >>> parse_reduction("ncclDevKernel_AllReduce_Sum_u32_RING_LL")
    ('sum', 'u32')
    """
    match = _REDUCTION.search(function_name.lower())
    if match is None:
        return None, None
    reduction, data_type = match.groups()
    return reduction, _DATA_TYPES.get(data_type, data_type)


def _open_of(text: str, close: int) -> int:
    """Return the index of the bracket that the one at ``close`` closes, or 0."""
    stack: list[str] = []
    for index in range(close, -1, -1):
        char = text[index]
        if char in _CLOSERS:
            stack.append(_CLOSERS[char])
        elif stack and char == stack[-1]:
            stack.pop()
        elif char == ">" and (not stack or stack[-1] == "<") and text[index - 1 : index] != "-":
            # Inside parentheses a ">" may be a comparison, so only templates nest there.
            stack.append("<")
        if not stack:
            return index
    return 0


def _without_clone(text: str) -> str:
    """Drop the mark that compilers put behind a copied function: ``f(int) [clone .kd]``."""
    start = text.rfind("[clone ")
    return text[:start].rstrip() if start > 0 and text.endswith("]") else text


def _split_identifier(text: str) -> tuple[str, str]:
    """Split off the identifier that ends ``text``, or an empty one."""
    # Backwards by hand: a regular expression would try every start of a long text.
    start = len(text)
    while start and (text[start - 1].isalnum() or text[start - 1] in "_$~"):
        start -= 1
    name = text[start:]
    return (text[:start], name) if _IDENTIFIER.fullmatch(name) else (text, "")


def _split_scope(text: str) -> tuple[str, str]:
    """Split off the ``a::b::`` that ends ``text``; return what is before it, and ``a::b``.

    Each part of the scope comes without its template arguments.
    """
    parts: list[str] = []
    while text.endswith("::"):
        text = text[:-2]
        if text.endswith(">"):
            text = text[: _open_of(text, len(text) - 1)]
        text, name = _split_identifier(text)
        parts.append(name or "<unnamed>")
    return text, "::".join(reversed(parts))


def _parse_mangled(text: str) -> Function:
    """Read the length-prefixed identifiers of an Itanium-mangled name: ``_ZN3foo3barE…``."""
    position = 3 if text.startswith("_ZN") else 2
    parts: list[str] = []
    while match := _MANGLED_PIECE.match(text, position):
        start, length = match.end(), int(match.group())
        parts.append(text[start : start + length])
        position = start + length
        if not text.startswith("_ZN"):
            break
    if not parts:
        return Function(text)
    return Function(parts[-1], "::".join(parts[:-1]))
