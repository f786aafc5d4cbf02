"""What is known about chips and models without a device: chip table, shapes, memory, roofline, results.

Nothing here imports torch, vLLM or torch_npu; a test holds it to that, so the command line and the plugin can share it.
"""
