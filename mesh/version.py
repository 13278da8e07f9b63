"""The version of this program. Nothing is loaded before it is asked for."""

from __future__ import annotations


def program_version() -> str:
    """The version of the installed package; "" when Queztl runs from sources that are not installed."""
    from importlib import metadata

    try:
        return metadata.version("queztl")
    except metadata.PackageNotFoundError:
        return ""
