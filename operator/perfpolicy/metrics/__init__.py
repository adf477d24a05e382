"""The only code that talks to Prometheus. Answers are handed on unread (evaluate/observation.py judges them), or MetricsUnavailable."""
