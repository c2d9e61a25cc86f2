"""Tables, pictures and pages about runs."""
