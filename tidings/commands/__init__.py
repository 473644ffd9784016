"""Commands of the CLI that have a file of their own."""
