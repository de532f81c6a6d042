"""Who is measured, one small file each.

A peer has VARIANTS, what is measured by its name: a function of the case and of the folder that it fills, called in a
process of its own whose time and memory are those of the variant. It leaves `model.onnx` there; a peer that cannot
write ONNX has `load(case, folder)`, which returns a function from the arrays of a batch to its answers. REQUIREMENTS
are what is installed for it, into an environment of its own; what the project itself needs is there. On models that
answer with vectors EMBEDDING_VARIANTS are measured instead, where a peer has them.
"""
