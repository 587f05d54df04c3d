"""Networks: a backbone from timm, a head of ours, and the weights they start from."""
