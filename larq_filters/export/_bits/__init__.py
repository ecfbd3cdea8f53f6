"""Packed networks: bits, integer thresholds, and a plain-C program, from a Keras model.

`_make` reads a model: `_nodes` its graph of `_operations`, `_rewrite` and `_regions` what belongs
together, `_fold` the thresholds, `_build` the steps of a `_network`, `_int8` their real layers in 8
bits. `_run` runs them in NumPy, `_c` and `_header` write C, `_npz` the file, and `_proof` compares
with the model.
"""
