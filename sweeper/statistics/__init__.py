"""What can be told apart: confusion, bootstrap and paired tests over arrays."""
