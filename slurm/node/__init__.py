"""On the compute node, inside an allocation."""
