"""What the plugin relies on in vLLM, held to the release of the row. `python -m tests.upstream` says what moved."""
