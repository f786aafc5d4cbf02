// libnnopbase: the base of CANN's operator libraries. What programs use of it (aclCreateTensor and its kin) is exported
// by libascendcl, on which this library depends, so that a look-up in either finds it.
