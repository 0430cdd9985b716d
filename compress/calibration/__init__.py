"""How much an error in each weight matters, measured on rows of the training data: what the fit of
a codec weights squared errors by. Mean squares of a layer's inputs (`activations`) or of gradients
(`fisher`), made fit for weighting (`smoothing`), kept in one file (`sensitivity_file`)."""
