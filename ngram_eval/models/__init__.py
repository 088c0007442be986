"""Who says how likely each token is: neural sources, whatever the model."""
