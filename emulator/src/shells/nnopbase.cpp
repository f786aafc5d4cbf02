// libnnopbase: the base of CANN's operator libraries. What programs use of it (aclCreateTensor and its kin) is exported
// by libascendcl and libopapi, on which this library depends, so that a look-up in any of them finds it.
