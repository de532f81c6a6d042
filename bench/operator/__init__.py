"""How fast and how lightly the operator works: many CompressionJobs on a real API server, their pods pretended."""
