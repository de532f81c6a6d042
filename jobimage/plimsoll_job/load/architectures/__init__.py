"""How modules are built, each way in a module of its own."""
