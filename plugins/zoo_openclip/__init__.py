"""The importer of open_clip's model configs."""
