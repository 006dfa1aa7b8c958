"""Redaction of passwords in text that is printed, logged or recorded."""

import re

# An assignment of a text to a name that says that it is a secret, in code, a config or a shell. Without
# quotes, only a long word with a digit is taken for one, and not an expression such as `token = new_token()`.
ASSIGNED = re.compile(
    r"""(\b\w*(?:password|passwd|secret|token|credential|api_?key|access_?key|private_?key)\w*["']?\s*[:=]\s*)"""
    r"""("[^"\n]+"|'[^'\n]+'|(?=[^\s(.]*\d)[\w+/=-]{12,}(?![\w(.\[]))""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Replaces passwords in URIs, and what is assigned to a name such as `api_key`, by `***`."""
    return ASSIGNED.sub(r"\g<1>***", without_password(text))


def without_password(text: str, instead: str = "***@") -> str:
    """Replaces the user and password of each URI in a text with `instead`."""
    return re.sub(r"(?<=://)[^/\s]+@", instead, text)
