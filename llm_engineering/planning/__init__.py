"""Planning: will a training fit a device, and how; worked out before a weight is loaded."""
