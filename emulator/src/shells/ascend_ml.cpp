// libascend_ml: checks of the hardware's health (aicore and link detection). None are emulated, so none are exported.
