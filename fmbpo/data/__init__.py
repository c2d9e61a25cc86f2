"""Data sets: stores, importing and collecting them, and batches from them."""
