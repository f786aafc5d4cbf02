"""`ascend bench`: drives `vllm bench`, checks what it really measured, and turns it into reports."""
