"""What quantized checkpoints raise."""


class UnsupportedCheckpoint(ValueError):
    """The checkpoint is quantized in a way that the plugin or the chip does not run; the message has the remedy."""
