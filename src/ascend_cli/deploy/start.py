"""The lines that start a server inside its container: with its key, or not at all."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

KEY_FILE = "/run/secrets/vllm_api_key"
# bash: the image's shell. Blanks alone are no key either; vLLM would drop an empty one and check nothing.
READ_KEY = (
    'key="$(cat {file})" && [ -n "${{key//[[:space:]]/}}" ] || '
    '{{ echo "no API key in {file}: make it, readable for uid $(id -u), and start again" >&2; exit 1; }}; '
)
CHECK_KEY = (
    '[ -n "${VLLM_API_KEY//[[:space:]]/}" ] || '
    '{ echo "the secret holds no API key: make it anew, and start again" >&2; exit 1; }'
)


def start_with_key(file: str = KEY_FILE) -> str:
    """For `bash -c LINE -- COMMAND ...`: the command with the key of a file in its environment."""
    return READ_KEY.format(file=file) + 'VLLM_API_KEY="$key" exec "$@"'


def pairs(arguments: Sequence[str]) -> list[str]:
    """Command-line words in lines of one option each: `--flag value` together, quoted for the shell."""
    lines: list[str] = []
    for word in arguments:
        quoted = shlex.quote(word)
        previous_takes_it = bool(lines) and lines[-1].startswith("--") and " " not in lines[-1] and "=" not in lines[-1]
        if not word.startswith("--") and previous_takes_it:
            lines[-1] += f" {quoted}"
        else:
            lines.append(quoted)
    return lines


def serve_line(arguments: Sequence[str], more: Sequence[str] = ()) -> str:
    """`exec vllm serve` with an option a line."""
    return " \\\n  ".join(["exec vllm serve", *pairs(arguments), *pairs(more)])
