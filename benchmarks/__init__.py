"""What is measured and how: parameters, operations, latency, memory; rows, their tables and pictures."""
