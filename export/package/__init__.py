"""Device packages: one file with what a device needs to run a bundle, the same byte for byte each time."""
