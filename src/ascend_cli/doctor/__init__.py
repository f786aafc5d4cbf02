"""`ascend doctor`: is this machine ready to serve, and which command fixes what is not."""
