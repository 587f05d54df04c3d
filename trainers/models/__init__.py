"""Networks: a backbone from timm, one of our heads, and their initial weights."""
