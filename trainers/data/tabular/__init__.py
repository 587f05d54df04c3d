"""The layout `table`: files of labels as people have them, read into rows."""
