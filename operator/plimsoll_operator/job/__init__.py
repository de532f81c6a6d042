"""CompressionJobs: observe, decide, and the manifests of what is decided."""
