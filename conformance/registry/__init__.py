"""Every architecture of vLLM's registry as a tiny checkpoint, run on emulated chips: right, refused, or a defect."""
