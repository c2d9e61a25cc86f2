"""The training stages, and their data: world models on records, policies in imagination."""
