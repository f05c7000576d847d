"""What is learned of what was served."""
