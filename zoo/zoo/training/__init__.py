"""Training of dual encoders: recipes, data order, steps, parallelism, checkpoints and records.

A run is decided by its recipe alone. Which samples a step sees is a pure function of the seed and the step, so that a
run that was killed goes on as if it had not been.
"""
