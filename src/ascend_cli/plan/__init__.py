"""`ascend plan`: does a model fit, on how many chips, how fast can it be at best."""
