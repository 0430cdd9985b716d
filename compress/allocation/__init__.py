"""A size budget spent on the layers of a model: what to try, what it costs, what it harms, the best
of it. Rate-distortion curves (`curves`) weighted by the loss (`sensitivity`), solved as a
multiple-choice knapsack (`solver`), to the byte of the real file (`sizes`)."""
