"""Shrinkflow's library. Importing it teaches transformers to read compressed models:

    import compress
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained("artifacts/compressed")

It costs nothing until transformers is used: the quantizer enters itself when transformers loads
its own quantizers.
"""

from compress.registration import register_when_loaded

register_when_loaded()
