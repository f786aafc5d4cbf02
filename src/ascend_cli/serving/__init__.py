"""`ascend serve`: what the user left open is decided, the model fetched, vLLM started and remembered."""
