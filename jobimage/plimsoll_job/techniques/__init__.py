"""Every technique of compression, one folder each, all of one shape: `apply(settings, candidate, bench) -> Applied`."""
