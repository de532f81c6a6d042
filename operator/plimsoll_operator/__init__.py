"""The operator of Plimsoll: watches the custom resources and does what they ask for."""
