"""Any image backbone of timm (PyTorch Image Models) as a vision tower."""
