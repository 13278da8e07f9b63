"""Run `uv pip install` with the package indexes, constraints and certificates that pip is configured with.

uv reads neither pip's configuration files nor its PIP_ variables. Usage: `python uv_like_pip.py UV ARGUMENT...`; uv
installs into the environment of that `python`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

#: pip's option -> uv's, for options with values; several values are separated by white space.
OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
    "keyring-provider": "--keyring-provider",
}
FLAGS = {"no-index": ("--no-index",), "pre": ("--prerelease", "allow")}
#: pip's option -> the variable by which uv is told.
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
#: Of `pip config list`; a later one wins.
SECTIONS = ("global", "install", ":env:")
NO = {"", "0", "false", "no", "off", "n", "f"}


def pip_settings(listing: str) -> dict[str, str]:
    """Option -> value, from the lines `section.option='value'` that `pip config list` prints."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, equals, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if equals and section in found:
            found[section][option.replace("_", "-")] = ast.literal_eval(value)
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def uv_arguments(settings: Mapping[str, str]) -> list[str]:
    """uv's options for `settings`. All indexes count the same, as with pip: the best version wins."""
    arguments = ["--index-strategy", "unsafe-best-match"]
    for option, flag in OPTIONS.items():
        for value in settings.get(option, "").split():
            arguments += [flag, value]
    for option, flags in FLAGS.items():
        if settings.get(option, "").strip().lower() not in NO:
            arguments += flags
    return arguments


def uv_variables(settings: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for `settings`."""
    return {name: settings[option] for option, name in VARIABLES.items() if settings.get(option)}


def main(uv: str, *arguments: str) -> None:
    """Become uv."""
    listing = [sys.executable, "-m", "pip", "config", "list"]
    settings = pip_settings(subprocess.run(listing, stdout=subprocess.PIPE, text=True, check=True).stdout)
    command = [uv, "pip", "install", "--python", sys.executable, *uv_arguments(settings), *arguments]
    os.execvpe(uv, command, os.environ | uv_variables(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
