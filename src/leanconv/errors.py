"""What every floor says when a name is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, valid: Iterable[str]) -> ValueError:
    """The error for a name that does not exist, with the nearest ones that do.

    >>> print(unknown("operator", "tide", ["tied", "ghost"]))
    unknown operator 'tide': did you mean 'tied'?
    >>> print(unknown("operator", "xyz", ["tied", "ghost"]))
    unknown operator 'xyz': valid are 'ghost', 'tied'
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return ValueError(f"unknown {what} {name!r}: did you mean {' or '.join(map(repr, near))}?")
    shown = ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return ValueError(f"unknown {what} {name!r}: valid are {shown}")
