"""`ascend doctor --first-run`: a model on this machine's chips, step by step, each against the one before."""
