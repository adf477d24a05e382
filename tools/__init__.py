"""What the Makefile calls: suites with their minutes, and generated files with their verify twin. Not shipped."""
