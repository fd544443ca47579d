"""CLIP and CustomTextCLIP: two towers and a logit scale."""
