"""What a reader sees of finished runs: tables and pictures."""
