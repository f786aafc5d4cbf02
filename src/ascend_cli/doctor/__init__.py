"""`ascend doctor`: is this machine ready to serve, and which command mends what is not."""
