"""Keeps passwords out of what is printed, logged or recorded."""

import re


def without_password(text: str, instead: str = "***@") -> str:
    """Any text, with `***` for the user and password of each URI in it."""
    return re.sub(r"(?<=://)[^/\s]+@", instead, text)
