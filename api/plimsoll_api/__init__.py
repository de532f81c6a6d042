"""The contract of Plimsoll: custom resources, plans, artifacts, reports and the gate.

Needs pydantic only. The operator, the job image and the command depend on it, never the other way.
"""

GROUP = "plimsoll.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
