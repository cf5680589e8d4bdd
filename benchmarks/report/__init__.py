"""Rows as a page: one HTML file that needs no network, and the same in Markdown."""
