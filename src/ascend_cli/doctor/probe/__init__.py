"""`ascend doctor --probe`: every form in which the plugin launches operators, tried on the chip against float64."""
