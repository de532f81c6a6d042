"""ModelReleases: which revision serves, and what a re-evaluation does about it."""
