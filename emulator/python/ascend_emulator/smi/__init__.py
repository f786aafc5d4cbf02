"""`npu-smi` for emulated chips: the layouts of the real tool, so that programs which parse them can be tested."""
