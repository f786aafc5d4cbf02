"""Names of quantization methods of ours, and of the file that tells one."""

MODELSLIM = "ascend"  # the name that users of `--quantization` know
ROUNDED = "ascend_float16_weights"  # float32 models, see `rounded`; no checkpoint has it
