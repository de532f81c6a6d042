"""How many of the models that people have each technique takes: every row carried out, exported and reloaded."""
