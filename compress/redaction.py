"""Passwords in addresses: found, and left out of everything that is shown or stored."""

import re

# Up to the last @: what stands before it may be a password with any character.
PASSWORD = re.compile(r"(://[^:/@\s]*):\S*@")
QUERY = re.compile(r"([?&]password=)[^&\s]*")


def without_password(text: str) -> str:
    """A URI, or a text with URIs in it, as it may be shown and stored."""
    return QUERY.sub(r"\1***", PASSWORD.sub(r"\1:***@", text))


def holds_password(uri: str) -> bool:
    return without_password(uri) != uri
