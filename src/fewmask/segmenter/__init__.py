"""The U-Net as a tool: train it, use it on a volume, score it, run it over a folder of scans."""
