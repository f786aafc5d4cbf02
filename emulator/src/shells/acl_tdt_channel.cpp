// libacl_tdt_channel: transfer of data sets to the device. torch_npu links to it and, for inference, calls nothing in it.
