"""The way to the API server: raw JSON, errors as classes, watches with a selector."""
