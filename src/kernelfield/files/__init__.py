"""Solutions as files and labelled arrays, and runs as configuration files."""
