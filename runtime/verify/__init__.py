"""A bundle's backends checked against its test vectors."""
