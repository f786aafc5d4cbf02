// libhcomm: the communication base that CANN 9 split from libhccl. torch_npu looks HcclGroupStart and HcclGroupEnd up in
// it; libhccl exports them here, on which this library depends.
