// libge_runner: CANN's graph engine. torch_npu links to it and, for inference, calls nothing in it.
