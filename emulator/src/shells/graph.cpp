// libgraph: CANN's graph description. torch_npu links to it and, for inference, calls nothing in it.
