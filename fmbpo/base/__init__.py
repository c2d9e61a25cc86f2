"""The ground floor: strict structuring, text for people, files, locks, memory. It knows nobody."""
