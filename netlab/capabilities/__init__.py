"""What this kernel lets this user do: `capability.py` has the names, `probes.py` tries them."""
