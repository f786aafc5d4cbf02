"""`ascend deploy`: a command or manifest that serves a model, safe unless asked otherwise."""
