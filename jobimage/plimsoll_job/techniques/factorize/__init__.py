"""Factorization: layers become products of smaller ones."""
