"""The job image: compresses a model, and measures what came out against what went in."""

from plimsoll_job.telemetry import switch_off

# Before any module of the package can load a library that asks.
switch_off()
