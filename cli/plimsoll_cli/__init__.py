"""The command `plimsoll`: thin; each verb imports only what it needs."""
