"""`ascend top`: chips beside the server they carry, live."""
