"""Redaction of passwords in text that is printed, logged or recorded."""

import re


def without_password(text: str, instead: str = "***@") -> str:
    """Replaces the user and password of each URI in a text with `instead`."""
    return re.sub(r"(?<=://)[^/\s]+@", instead, text)
