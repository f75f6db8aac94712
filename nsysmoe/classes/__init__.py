"""What a kernel is, told by the function component of its name."""

from nsysmoe.classes.function import Function, parse_function
from nsysmoe.classes.rules import (
    COLLECTIVE,
    EPLB,
    MOE_GEMM,
    UNCLASSIFIED,
    ClassMap,
    KernelClass,
    default_class_map,
)

__all__ = [
    "COLLECTIVE",
    "EPLB",
    "MOE_GEMM",
    "UNCLASSIFIED",
    "ClassMap",
    "Function",
    "KernelClass",
    "default_class_map",
    "parse_function",
]
