"""Where keys, values and recurrent states live on the device."""
