"""One step of the engine: its inputs in one upload, the model, the sampled tokens."""
