"""Build the generated C with the host's compiler and compare it with the Python meaning of the model."""
