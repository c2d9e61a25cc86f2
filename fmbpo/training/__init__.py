"""The stages that train: world models on recorded data, policies in imagination, and their data."""
