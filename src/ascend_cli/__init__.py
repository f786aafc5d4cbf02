"""The `ascend` command. Nothing in it imports torch or vLLM at start-up, and a test holds it to that."""
