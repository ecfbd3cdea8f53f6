"""Names in C: which a file and a function cannot have."""

import re

from larq_filters.export._bits import _c

_C = """
auto break case char const continue default do double else enum extern float for goto if inline int
long register restrict return short signed sizeof static struct switch typedef union unsigned void
volatile while main
"""
_CPP = """
alignas alignof and and_eq asm bitand bitor bool catch char8_t char16_t char32_t class compl concept
const_cast consteval constexpr constinit co_await co_return co_yield decltype delete dynamic_cast
explicit export false friend mutable namespace new noexcept not not_eq nullptr operator or or_eq
private protected public reinterpret_cast requires static_assert static_cast template this
thread_local throw true try typeid typename using virtual wchar_t xor xor_eq
"""
_LIBRARY = """
abort abs atan calloc ceil cos exit exp fabs floor fmod fprintf fputs free fscanf isalpha isdigit
isspace labs ldexp log malloc memchr memcmp memcpy memmove memset modf pow printf putc putchar puts
realloc scanf sin snprintf sprintf sqrt sscanf strcat strchr strcmp strcpy strlen strncat strncmp
strncpy strstr tan tolower toupper vfprintf vprintf vsprintf
"""


def check(stem: str, function: str) -> str:
    """What a file's arrays begin with.

    Raises:
        ValueError: The name of the file or of the function cannot be one in C and C++.
    """
    taken = {*_C.split(), *_CPP.split(), *_LIBRARY.split(), *_c.NAMES}
    ours = rf"w\d+|{re.escape(stem)}_s\d+_\w+"  # of the program and the header
    stdint = r"u?int(_least|_fast)?\d+_t|u?intptr_t|u?intmax_t|U?INT\w*|SIZE_MAX|PTRDIFF\w*"
    for name in (stem, function):
        is_name = re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)
        if not is_name or name in taken or re.fullmatch(f"{ours}|{stdint}", name):
            raise ValueError(
                "the name of the file, without its ending, and of the function become names in C: "
                "begin with a letter, use letters, digits and underscores, and no name that C, C++ "
                f"or the program has already. Received: '{name}'"
            )
    return stem
