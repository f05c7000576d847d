"""Being a process: a member of its group, with metrics, logs and health pages."""
