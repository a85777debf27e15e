"""One file a method: pure functions on tensors. No I/O, no config, nothing but torch."""
