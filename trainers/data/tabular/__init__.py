"""Tables: files of labels as people have them, and rows of a layout of one's own."""
