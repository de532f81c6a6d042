"""Where a pod runs and with what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plimsoll_api.model import Model, Quantity
from plimsoll_api.rules import Pattern, Rule, keys_fit
from plimsoll_api.values import LABEL_KEY, RESOURCE_NAME, DnsName, LabelValue, list_of


class Resources(Model):
    """Compute resources of the container, as in a pod."""

    rules = (keys_fit("requests", RESOURCE_NAME), keys_fit("limits", RESOURCE_NAME))

    requests: dict[str, Quantity] = Field(default={}, max_length=16, description="What is reserved, by resource name.")
    limits: dict[str, Quantity] = Field(
        default={},
        max_length=16,
        description="What may be used, by resource name. nvidia.com/gpu: 1 makes the pod compute on a "
        "GPU; of several, the evaluation uses the first, and training all.",
    )


class Toleration(Model):
    """A taint that the pod tolerates, as in a pod."""

    rules = (
        Rule(
            cel="!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
            holds=lambda toleration: not (toleration.operator == "Exists" and toleration.value),
            message="must be empty with operator Exists",
            field="value",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            holds=lambda toleration: bool(toleration.key) or toleration.operator == "Exists",
            message="is required unless operator is Exists, which then tolerates every taint",
            field="key",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            holds=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
            message="goes with effect NoExecute only",
            field="tolerationSeconds",
            reason="FieldValueForbidden",
        ),
    )

    key: str | None = Field(default=None, max_length=316, description="The taint's key.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Exists or Equal; Equal when unset.")
    value: LabelValue | None = Field(default=None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="NoSchedule, PreferNoSchedule or NoExecute; every effect when unset."
    )
    toleration_seconds: int | None = Field(default=None, description="How long a NoExecute taint is tolerated.")


class Runtime(Model):
    """Where and with what a pod runs."""

    rules = (keys_fit("node_selector", LABEL_KEY),)

    image: Annotated[str, Pattern(r"\S+", "an image reference without spaces", 512)] | None = Field(
        default=None,
        description="The job image, ours or one built on it; the operator's default when unset.",
    )
    resources: Resources = Field(default=Resources(), description="Compute resources.")
    node_selector: dict[str, LabelValue] = Field(
        default={}, max_length=32, description="Labels that the node must have."
    )
    tolerations: list[Toleration] = Field(
        default=[],
        max_length=32,
        description="Taints that the pods tolerate.",
        json_schema_extra=list_of("atomic"),
    )
    runtime_class_name: DnsName | None = Field(
        default=None,
        description="The RuntimeClass of the pods: nvidia, where the node's default runtime does not know its GPUs.",
    )
    priority_class_name: DnsName | None = Field(default=None, description="The pods' priority.")
    service_account_name: DnsName | None = Field(
        default=None,
        description="The pods' service account; no token of it is mounted.",
    )
