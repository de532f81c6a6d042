"""How a scheme is fitted to calibration data: by which methods, to what graph, and which of them does best."""
