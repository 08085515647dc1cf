"""The trained flow: features of photometry, the masked autoregressive flow and its inverse, training, support."""
