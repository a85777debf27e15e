"""A recipe's on-policy stages on a Ray cluster: `placement` says who stands where, `trainer` and `samplers` are there."""
