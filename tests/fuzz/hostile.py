"""Values that nobody should send: names that would steer a page, a terminal or a parser."""

from __future__ import annotations

HTML = "<img src=x onerror=alert(1)>"
MEBIBYTE = 1 << 20

NAMES: tuple[str | bytes, ...] = (
    "",
    " ",
    "?",
    "nul\0inside",
    "\x1b[2J\x1b]0;owned\x07",
    "line\nbreak\r\n\u2028",
    "\u202egnp.exe",
    "'; DROP TABLE StringIds; --",
    '" OR 1=1 --',
    "$(touch owned) `touch owned` ${HOME}",
    HTML,
    f'"><script>alert(1)</script>{HTML}',
    "</script><script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "\\input{/etc/passwd} \\end{table} % & # _ ^ ~",
    "| a | b |\n|---|---|",
    "=1+1",
    "%s%n%d{0}{name}",
    b"\xff\xfe\xfa",
    b"\xed\xa0\x80 half of a pair",
    "\U0010ffff\ufffe\ud7ff",
    "e" + "\u0301" * 500,
    "A" * MEBIBYTE,
    f"fused_moe_kernel<{HTML * (MEBIBYTE // len(HTML))}>",
    "fused_moe_kernel" + "<" * 50_000,
    "<" * 50_000 + "(" * 50_000,
    "a::" * 50_000 + "f",
    "void " * 50_000,
    "operator()" * 5_000 + "<(anonymous namespace)>" * 5_000,
    "ncclDevKernel_AllReduce_Sum_" + "u" * 10_000 + "_RING_LL(x)",
    "ncclDevKernel_",
    "fused_moe_kernel",
    "execute_context_999999999999999999999(9)_generation_1(1)",
)

INTEGERS = (
    0, 1, -1, 2, 7, -(2**31), 2**31, 2**32, 2**53 + 1, 2**62, -(2**62), 2**63 - 1, -(2**63),
    1_795_302_237_418_429_892,
)  # fmt: skip
NOT_INTEGERS = (None, 1.5, -0.0, 1e300, float("inf"), "soon", "12", " 12", "", b"\x00\x01", b"12")
