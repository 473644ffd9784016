"""Turns what happens on a small business's website and calendar into the right sequence of emails."""
