"""Training half of nfpo: normalizing-flow policies with PPO, environments and ONNX export."""
