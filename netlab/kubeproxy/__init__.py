"""kube-proxy: Services become chains and rules as data."""
