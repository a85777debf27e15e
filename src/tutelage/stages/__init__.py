"""One file a stage: `run(config)` reads top to bottom in the paper's order."""
