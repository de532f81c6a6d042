"""The job image: compresses a model, and measures what came out against what went in."""
