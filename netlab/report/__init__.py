"""Reports: a Result as text, JSON or picture."""
