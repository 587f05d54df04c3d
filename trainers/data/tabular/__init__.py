"""Tables: label files as people have them, and the rows of a user's own layout."""
