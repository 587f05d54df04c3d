"""Terminal output: messages, tables, progress, and logs."""
