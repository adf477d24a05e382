"""Queries, recording rules and alerts as data built from parts. Pure; knows Prometheus' language and Istio's metrics, nothing of
Kubernetes.
"""
