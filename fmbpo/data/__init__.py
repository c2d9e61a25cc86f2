"""Data sets: stores, their import and collection, and batches from them."""
